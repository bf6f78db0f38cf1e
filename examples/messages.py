"""Anthropic's API, by Anthropic's own package (`pip install anthropic`): a stream, and what it took."""

import os

from anthropic import Anthropic

client = Anthropic(
    base_url=os.environ.get("BASE_URL", "http://localhost:8000/v1").removesuffix("/v1"),
    api_key=os.environ.get("API_KEY", "unused"),
)
model = os.environ.get("MODEL") or next(each.id for each in client.models.list())

asked = {
    "model": model,
    "system": "You answer in one sentence.",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
}
print("The prompt has", client.messages.count_tokens(**asked).input_tokens, "tokens")

with client.messages.stream(**asked, max_tokens=64) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
    message = stream.get_final_message()

usage = message.usage
print(f"\nIt ended with {message.stop_reason} after {usage.output_tokens} tokens;")
print(
    f"{usage.cache_read_input_tokens} tokens of the prompt were in the cache, {usage.input_tokens} were not"
)
