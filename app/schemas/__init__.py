"""Wire models, one file a resource. Nothing outside ``app`` sees them."""
