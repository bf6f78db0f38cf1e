"""Loaded models: which there are, who makes room for whom, and the states between."""
