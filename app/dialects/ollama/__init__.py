"""Ollama's API, translated: its requests become OpenAI's, and the answers to those become its own."""
