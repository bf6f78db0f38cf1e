"""A batch: many requests in a file, answered when the server has nothing else to do."""

import json
import os
import time

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("BASE_URL", "http://localhost:8000/v1"),
    api_key=os.environ.get("API_KEY", "unused"),
)
model = os.environ.get("MODEL") or client.models.list().data[0].id

requests = [
    {
        "custom_id": country,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": model, "max_tokens": 20, "messages": [{"role": "user", "content": question}]},
    }
    for country in ("France", "Japan", "Peru", "Kenya")
    for question in (f"What is the capital of {country}?",)
]
lines = "\n".join(json.dumps(request) for request in requests)
file = client.files.create(file=("capitals.jsonl", lines.encode()), purpose="batch")
batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
while batch.status in ("validating", "in_progress", "finalizing"):
    time.sleep(0.5)
    batch = client.batches.retrieve(batch.id)
print(batch.status, batch.request_counts)
for error in batch.errors.data or [] if batch.errors else []:
    print(f"line {error.line}: {error.message}")
# The answers come in the order in which they were ready.
for name in (batch.output_file_id, batch.error_file_id):
    for line in client.files.content(name).text.splitlines() if name else []:
        result = json.loads(line)
        body = result["response"]["body"]
        print(result["custom_id"], body.get("error") or body["choices"][0]["message"]["content"])
