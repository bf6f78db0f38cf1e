"""Media of requests: from data URLs and URLs to bytes that were checked, before any engine sees them."""
