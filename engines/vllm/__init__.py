"""The vLLM engine: ``AsyncLLM`` in this process, its EngineCore in vLLM's own child process."""
