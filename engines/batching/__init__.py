"""The engine thread that continuous-batching engines share, and its way back to the event loop."""
