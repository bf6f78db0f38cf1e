"""Rerank: Jina's, Cohere's and text-embeddings-inference's APIs, and vLLM's scores."""
