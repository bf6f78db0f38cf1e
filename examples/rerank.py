"""Rerank: sort passages by how well they answer a question."""

import os

import httpx

client = httpx.Client(
    base_url=os.environ.get("BASE_URL", "http://localhost:8000/v1"),
    headers={"Authorization": f"Bearer {os.environ.get('API_KEY', 'unused')}"},
    timeout=300,
)
models = client.get("/models").json()["data"]
able = [each["id"] for each in models if "rerank" in (each.get("capabilities") or ())]
model = os.environ.get("MODEL") or next(iter(able), None)
if model is None:
    raise SystemExit("No model here reranks: put a reranker, such as bge-reranker-v2-m3, into models/.")

documents = [
    "Berlin is the capital of Germany.",
    "The sea is blue.",
    "Paris is the capital of France.",
]
body = {"model": model, "query": "What is the capital of France?", "documents": documents, "top_n": 2}
answer = client.post("/rerank", json=body)
answer.raise_for_status()
for result in answer.json()["results"]:
    print(f"{result['relevance_score']:.3f}  {documents[result['index']]}")
