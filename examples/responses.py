"""Responses: a conversation that the server remembers, with a tool, in OpenAI's newer API."""

import json
import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("BASE_URL", "http://localhost:8000/v1"),
    api_key=os.environ.get("API_KEY", "unused"),
)
model = os.environ.get("MODEL") or client.models.list().data[0].id

NUMBER = {"type": "integer", "minimum": 0, "maximum": 999}
NUMBERS = {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}, "required": ["a", "b"]}
tools = [{"type": "function", "name": "multiply", "parameters": NUMBERS}]

first = client.responses.create(
    model=model,
    input="What is 17 times 23? Use the tool.",
    tools=tools,
    tool_choice="required",
    max_output_tokens=100,
    temperature=0,
)
call = next(item for item in first.output if item.type == "function_call")
numbers = json.loads(call.arguments)
print(f"multiply({call.arguments})")
result = {"type": "function_call_output", "call_id": call.call_id, "output": str(numbers["a"] * numbers["b"])}

# The server has the rest of the conversation.
with client.responses.stream(
    model=model, input=[result], previous_response_id=first.id, max_output_tokens=100, temperature=0
) as stream:
    for event in stream:
        if event.type == "response.output_text.delta":
            print(event.delta, end="", flush=True)
print()
