"""Log probabilities: how sure the model was of each token, and what else it could have said."""

import math
import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("BASE_URL", "http://localhost:8000/v1"),
    api_key=os.environ.get("API_KEY", "unused"),
)
model = os.environ.get("MODEL") or client.models.list().data[0].id

answer = client.chat.completions.create(
    model=model,
    messages=[{"role": "user", "content": "What is the capital of France?"}],
    max_tokens=10,
    temperature=0,
    logprobs=True,
    top_logprobs=3,
)
for token in answer.choices[0].logprobs.content:
    others = ", ".join(f"{each.token!r} {math.exp(each.logprob):.0%}" for each in token.top_logprobs)
    print(f"{token.token!r:>12} {math.exp(token.logprob):4.0%}   of {others}")
