"""Inference: a parsed task on its way to a backend, and its answer on the way back."""
