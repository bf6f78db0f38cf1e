"""Text completion: the model goes on with a text, in several ways."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("BASE_URL", "http://localhost:8000/v1"),
    api_key=os.environ.get("API_KEY", "unused"),
)
model = os.environ.get("MODEL") or client.models.list().data[0].id

beginning = "Once upon a time there was a lighthouse"
answer = client.completions.create(
    model=model, prompt=beginning, n=2, max_tokens=40, temperature=0.9, seed=1, stop=["\n\n"]
)
for choice in answer.choices:
    print(f"{choice.index + 1}. {beginning}{choice.text} [{choice.finish_reason}]\n")
