"""What engines with continuous batching share: the engine thread, the loop's side, sequences, their queue."""
