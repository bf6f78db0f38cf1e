"""Tokens and texts: both ways, special tokens kept apart, and tokens that are kept out."""
