"""Tokens of prompts and chats, as vLLM and llama-server tell them."""
