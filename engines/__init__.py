"""Inference engines behind one contract. Knows nothing of HTTP or of the balancer."""
