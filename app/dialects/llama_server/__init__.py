"""llama-server's own API, as far as editors need it: filling in the middle."""
