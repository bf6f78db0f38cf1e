"""Measures this server, and llama-server beside it. Run with ``make bench``; see README.md here."""
