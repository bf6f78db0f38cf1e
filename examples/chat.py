"""Chat: a conversation of several turns, which the client keeps."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("BASE_URL", "http://localhost:8000/v1"),
    api_key=os.environ.get("API_KEY", "unused"),
)
model = os.environ.get("MODEL") or client.models.list().data[0].id

messages = [{"role": "system", "content": "You answer in one short sentence."}]
for question in ("What is the capital of France?", "Which river flows through it?"):
    messages.append({"role": "user", "content": question})
    answer = client.chat.completions.create(model=model, messages=messages, max_tokens=64, temperature=0)
    message = answer.choices[0].message
    messages.append({"role": "assistant", "content": message.content})
    print(f"> {question}\n{message.content}\n")
print(f"{answer.usage.prompt_tokens} + {answer.usage.completion_tokens} tokens, by {answer.model}")
