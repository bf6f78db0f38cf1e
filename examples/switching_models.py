"""Switching models: a request loads the model that it names; what is idle makes room."""

import os

import httpx
from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("BASE_URL", "http://localhost:8000/v1"),
    api_key=os.environ.get("API_KEY", "unused"),
    timeout=300,
)
named = os.environ.get("MODEL")
models = [named] if named else [each.id for each in client.models.list()][:3]


def state(model: str) -> str:
    answer = httpx.get(f"{client.base_url}models/{model}", headers=client.auth_headers)
    return answer.raise_for_status().json()["state"]


for model in models:
    print(f"{model} is {state(model)}", end=", ", flush=True)
    try:
        answer = client.completions.create(model=model, prompt="The sea is", max_tokens=8, temperature=0)
    except Exception as error:  # one that generates no text, or that does not fit
        print(f"cannot be asked: {error}")
        continue
    print(f"then {state(model)}: The sea is{answer.choices[0].text}")
