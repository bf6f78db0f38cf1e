"""OpenAI's transcriptions: a form with a sound, which becomes a chat about it."""
