"""Filling in the middle: a model for code writes what stands between two pieces of it."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("BASE_URL", "http://localhost:8000/v1"),
    api_key=os.environ.get("API_KEY", "unused"),
)
able = [each for each in client.models.list() if "fim" in (getattr(each, "capabilities", None) or ())]
model = os.environ.get("MODEL") or next((each.id for each in able), None)
if model is None:
    raise SystemExit("No model here fills in the middle: pull one for code, such as Qwen2.5-Coder.")

before = "def fibonacci(n: int) -> int:\n    if n < 2:\n        return n\n    return "
after = "\n\nprint(fibonacci(10))\n"
answer = client.completions.create(
    model=model, prompt=before, suffix=after, max_tokens=40, temperature=0, stop=["\n\n"]
)
print(before + answer.choices[0].text + after)
