"""llama.cpp through llama-cpp-python's low-level API: continuous batching on one thread a context."""
