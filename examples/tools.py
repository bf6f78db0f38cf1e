"""Tools: the model calls functions of this program until it can answer."""

import json
import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("BASE_URL", "http://localhost:8000/v1"),
    api_key=os.environ.get("API_KEY", "unused"),
)
model = os.environ.get("MODEL") or client.models.list().data[0].id

FUNCTIONS = {"add": lambda a, b: a + b, "multiply": lambda a, b: a * b}
NUMBER = {"type": "integer", "minimum": 0, "maximum": 999}
NUMBERS = {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}, "required": ["a", "b"]}
strict = {"strict": True, "parameters": NUMBERS | {"additionalProperties": False}}
tools = [{"type": "function", "function": {"name": name, **strict}} for name in FUNCTIONS]
messages = [{"role": "user", "content": "What is 17 times 23? Use the tool."}]
choice = "required"  # small models need it once; leave it out for larger ones
for _ in range(3):
    answer = client.chat.completions.create(
        model=model,
        messages=messages,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=False,
        max_tokens=100,
        temperature=0,
    )
    message = answer.choices[0].message
    messages.append(message.model_dump(exclude_none=True))
    if not message.tool_calls or answer.choices[0].finish_reason == "length":
        break
    for call in message.tool_calls:
        result = FUNCTIONS[call.function.name](**json.loads(call.function.arguments))
        print(f"{call.function.name}({call.function.arguments}) = {result}")
        messages.append({"role": "tool", "tool_call_id": call.id, "content": str(result)})
    choice = "auto"
print(message.content or "")
