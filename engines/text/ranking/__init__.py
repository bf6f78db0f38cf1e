"""Rerankers that generate, and the prompts that queries and documents become."""
