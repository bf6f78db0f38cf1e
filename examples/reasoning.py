"""Reasoning: what a model thinks comes apart from what it answers."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("BASE_URL", "http://localhost:8000/v1"),
    api_key=os.environ.get("API_KEY", "unused"),
)
able = [each for each in client.models.list() if "reasoning" in (getattr(each, "capabilities", None) or ())]
model = os.environ.get("MODEL") or next((each.id for each in able), None)
if model is None:
    raise SystemExit("No model here tells its reasoning: `enginehouse pull qwen3:4b` gets one.")

answer = client.chat.completions.create(
    model=model,
    messages=[{"role": "user", "content": "Is 391 a prime number?"}],
    reasoning_effort="low",
    max_tokens=1000,
)
message = answer.choices[0].message
print("Thoughts:", getattr(message, "reasoning_content", None))
print("Answer:", message.content)
details = answer.usage.completion_tokens_details
if details is not None:
    print(f"{details.reasoning_tokens} of {answer.usage.completion_tokens} tokens are thoughts")
