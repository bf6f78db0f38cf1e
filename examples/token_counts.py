"""Tokens: how many a text has, which, and back; what a chat becomes before the model reads it."""

import os

import httpx

client = httpx.Client(
    base_url=os.environ.get("BASE_URL", "http://localhost:8000/v1"),
    headers={"Authorization": f"Bearer {os.environ.get('API_KEY', 'unused')}"},
    timeout=300,
)
model = os.environ.get("MODEL") or client.get("/models").json()["data"][0]["id"]


def post(path: str, **body: object) -> dict:
    answer = client.post(path, json={"model": model, **body})
    answer.raise_for_status()
    return answer.json()


tokens = post("/tokenize", prompt="The lighthouse keeper counts ships.")["tokens"]
print(len(tokens), "tokens:", tokens)
print("and back:", post("/detokenize", tokens=tokens)["prompt"])
