"""Embeddings: find the passages whose meaning is nearest to a question."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("BASE_URL", "http://localhost:8000/v1"),
    api_key=os.environ.get("API_KEY", "unused"),
)
able = [each for each in client.models.list() if "embeddings" in (getattr(each, "capabilities", None) or ())]
model = os.environ.get("MODEL") or next((each.id for each in able), None)
if model is None:
    raise SystemExit("No model here makes embeddings: put an embedding model into models/.")

passages = [
    "The Seine flows through Paris.",
    "A cat sleeps up to sixteen hours a day.",
    "Bread rises because yeast makes gas.",
]
question = "Which river is in the capital of France?"
answer = client.embeddings.create(model=model, input=[question, *passages])
wanted, *vectors = [each.embedding for each in answer.data]
# The vectors have length 1: their product is the cosine.
scores = [sum(a * b for a, b in zip(wanted, vector, strict=True)) for vector in vectors]
for score, passage in sorted(zip(scores, passages, strict=True), reverse=True):
    print(f"{score:.3f}  {passage}")
