"""Text work every engine shares: chat templates, incremental decoding, stop strings."""
