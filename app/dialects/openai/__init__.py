"""OpenAI's API: chat and text completions, and what the two share."""
