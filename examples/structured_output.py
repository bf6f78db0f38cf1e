"""Structured output: the answer is an object of a class, whatever the model would rather say."""

import os
from typing import Literal

from openai import OpenAI
from pydantic import BaseModel, Field

client = OpenAI(
    base_url=os.environ.get("BASE_URL", "http://localhost:8000/v1"),
    api_key=os.environ.get("API_KEY", "unused"),
)
model = os.environ.get("MODEL") or client.models.list().data[0].id


class Review(BaseModel):
    product: str = Field(max_length=40)
    mood: Literal["happy", "neutral", "angry"]
    stars: int = Field(ge=1, le=5)


answer = client.chat.completions.parse(
    model=model,
    messages=[
        {
            "role": "system",
            "content": "Extract the review as JSON: product, mood, stars.",
        },
        {"role": "user", "content": "I love this kettle, it boils in a minute. Five stars!"},
    ],
    response_format=Review,
    max_tokens=100,
    temperature=0,
)
review = answer.choices[0].message.parsed
print(repr(review))
print(f"{review.mood}: {'*' * review.stars}")
