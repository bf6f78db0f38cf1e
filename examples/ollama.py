"""Ollama's API, by httpx or by Ollama's own package: for a server with OLLAMA_API=true."""

import json
import os

import httpx

url = os.environ.get("BASE_URL", "http://localhost:8000/v1").removesuffix("/v1")
key = os.environ.get("API_KEY", "unused")
client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=300)

listing = client.get("/api/tags")
if listing.status_code == 404:
    raise SystemExit(listing.json()["error"])
models = [each["name"] for each in listing.json()["models"]]
model = os.environ.get("MODEL") or models[0]
shown = client.post("/api/show", json={"model": model}).json()
print(f"{model}: {shown['details']['parameter_size']}, {', '.join(shown['capabilities'])}")

body = {
    "model": model,
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "options": {"num_predict": 64, "temperature": 0},
    "keep_alive": "5m",
}
with client.stream("POST", "/api/chat", json=body) as answer:
    for line in answer.iter_lines():
        piece = json.loads(line)
        if "error" in piece:
            raise SystemExit(piece["error"])
        print(piece["message"]["content"], end="", flush=True)
print(f"\n{piece['eval_count']} tokens in {piece['eval_duration'] / 1e9:.1f} s ({piece['done_reason']})")
