"""Answers of chat models: formats of reasoning and tool calls, and readers of them."""
