"""Anthropic's API: messages, and the form of its models and errors."""
