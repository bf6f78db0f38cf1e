"""Jobs: work that goes on after a restart of the server, such as batches and pulls."""
