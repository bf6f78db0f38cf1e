"""Pooling: whole texts made into vectors on a thread of their own, those of several requests together."""
