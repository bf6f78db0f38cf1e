"""Images: a question about a picture, which is sent along."""

import base64
import os
import sys
from pathlib import Path

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("BASE_URL", "http://localhost:8000/v1"),
    api_key=os.environ.get("API_KEY", "unused"),
)
able = [each for each in client.models.list() if "vision" in (getattr(each, "capabilities", None) or ())]
model = os.environ.get("MODEL") or next((each.id for each in able), None)
if model is None:
    raise SystemExit("No model here sees images: pull one that does, such as ggml-org/gemma-3-4b-it-GGUF.")

RED_SQUARE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP8z4AdMOEQH6QSAM1BAQ/oQeJvAAAAAElFTkSuQmCC"
)
picture = RED_SQUARE
if len(sys.argv) > 1 and Path(sys.argv[1]).is_file():
    picture = base64.b64encode(Path(sys.argv[1]).read_bytes()).decode()
question = [
    {"type": "text", "text": "What is in this picture?"},
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
]
answer = client.chat.completions.create(
    model=model, messages=[{"role": "user", "content": question}], max_tokens=50
)
print(answer.choices[0].message.content)
print(answer.usage.prompt_tokens, "tokens in the prompt, the picture's among them")
