"""Examples: what *Try it out* in /docs sends first, for each route that takes something."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

JSON = "application/json"
_QUERY = "What is the capital of France?"
_QUESTION = [{"role": "user", "content": _QUERY}]
_DOCUMENTS = ["Berlin is the capital of Germany.", "Paris is the capital of France.", "The sea is blue."]
_UPSTREAM = "gpu1"
_RED_SQUARE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP8z4AdMOEQH6QSAM1BAQ/oQeJvAAAA"
    "AElFTkSuQmCC"
)
_PULLED = "HuggingFaceTB/SmolLM2-360M-Instruct-GGUF"
_ADAPTER = "pirate"
_IDS = {
    "file_id": "file-0123456789abcdef0123456789abcdef",
    "batch_id": "batch_0123456789abcdef0123456789abcdef",
    "response_id": "resp_0123456789abcdef01234567",
}


def bodies(model: str) -> dict[str, dict[str, Any]]:
    """Named bodies for each ``METHOD /path``, the simplest first. ``model`` is the one that answers first."""
    return {
        "POST /v1/chat/completions": {
            "A question": {"model": model, "messages": _QUESTION, "max_tokens": 64},
            "Streamed": {"model": model, "messages": _QUESTION, "max_tokens": 64, "stream": True},
            "With a system message": {
                "model": model,
                "messages": [{"role": "system", "content": "You answer in one sentence."}, *_QUESTION],
                "max_tokens": 64,
                "temperature": 0,
            },
            "About a picture, for models that see": {
                "model": model,
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "text", "text": "Which color is this?"},
                            {"type": "image_url", "image_url": {"url": _RED_SQUARE}},
                        ],
                    }
                ],
                "max_tokens": 64,
            },
        },
        "POST /v1/messages": {
            "A question": {"model": model, "messages": _QUESTION, "max_tokens": 64},
            "Streamed": {"model": model, "messages": _QUESTION, "max_tokens": 64, "stream": True},
            "With a system message": {
                "model": model,
                "system": "You answer in one sentence.",
                "messages": _QUESTION,
                "max_tokens": 64,
            },
        },
        "POST /v1/messages/count_tokens": {"A question": {"model": model, "messages": _QUESTION}},
        "POST /v1/responses": {
            "A question": {"model": model, "input": _QUERY, "max_output_tokens": 64},
            "Streamed": {"model": model, "input": _QUERY, "max_output_tokens": 64, "stream": True},
            "With instructions, and not stored": {
                "model": model,
                "instructions": "You answer in one sentence.",
                "input": [{"role": "user", "content": _QUERY}],
                "max_output_tokens": 64,
                "store": False,
            },
        },
        "POST /v1/responses/input_tokens": {"A question": {"model": model, "input": _QUERY}},
        "POST /v1/completions": {
            "A beginning": {"model": model, "prompt": "Once upon a time", "max_tokens": 32},
            "Streamed": {"model": model, "prompt": "Once upon a time", "max_tokens": 32, "stream": True},
        },
        "POST /v1/chat/completions/render": {"A question": {"model": model, "messages": _QUESTION}},
        "POST /v1/chat/completions/input_tokens": {"A question": {"model": model, "messages": _QUESTION}},
        "POST /v1/apply-template": {"A question": {"model": model, "messages": _QUESTION}},
        "POST /v1/tokenize": {
            "A text": {"model": model, "prompt": "Once upon a time"},
            "With the text of each token": {
                "model": model,
                "prompt": "Once upon a time",
                "return_token_strs": True,
            },
            "A conversation": {"model": model, "messages": _QUESTION},
        },
        "POST /v1/infill": {
            "A gap in a function": {
                "model": model,
                "input_prefix": "def add(a, b):\n    ",
                "input_suffix": "\n    return result\n",
                "n_predict": 32,
            },
        },
        "POST /v1/detokenize": {"Tokens": {"model": model, "tokens": [40, 41]}},
        "POST /v1/embeddings": {
            "Two texts": {"model": model, "input": ["The sun rises.", "Dawn breaks."]},
            "As base64": {"model": model, "input": "The sun rises.", "encoding_format": "base64"},
        },
        "POST /v1/rerank": {
            "The best two": {"model": model, "query": _QUERY, "documents": _DOCUMENTS, "top_n": 2},
            "As text-embeddings-inference has it": {"model": model, "query": _QUERY, "texts": _DOCUMENTS},
        },
        "POST /v1/score": {
            "One against two": {"model": model, "text_1": _QUERY, "text_2": _DOCUMENTS[:2]},
        },
        "POST /v1/batches": {
            "Chats": {
                "input_file_id": _IDS["file_id"],
                "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
            },
        },
        "POST /v1/models/load": {
            "Wait until it is ready": {"model_name": model},
            "Answer at once": {"model_name": model, "wait": False},
        },
        "POST /v1/models/{model}/adapters": {
            "A file": {"name": _ADAPTER, "path": f"adapters/{_ADAPTER}.gguf"},
            "Half as strong": {"name": _ADAPTER, "path": f"adapters/{_ADAPTER}.gguf", "scale": 0.5},
        },
        "POST /v1/load_lora_adapter": {
            "A file": {"lora_name": _ADAPTER, "lora_path": f"adapters/{_ADAPTER}.gguf"}
        },
        "POST /v1/unload_lora_adapter": {"By its name": {"lora_name": _ADAPTER}},
        "POST /v1/models/pull": {
            "From Hugging Face": {
                "model_name": _PULLED,
                "include": "*q8_0.gguf",
            },
        },
        "POST /v1/cluster/scale": {
            "One more": {"action": "scale_up", "count": 1},
            "One less": {"action": "scale_down", "count": 1},
        },
        "POST /v1/cluster/restart": {
            "All, one after the other": {"instance_id": "all"},
            "One": {"instance_id": "instance_0"},
        },
        "POST /v1/cluster/strategy": {"Where fewest calls run": {"strategy": "least_connections"}},
        "POST /v1/cluster/upstreams": {
            "A server": {"url": f"http://{_UPSTREAM}:8000/v1", "name": _UPSTREAM},
            "With a key": {
                "url": "http://gpu2:8000/v1",
                "name": "gpu2",
                "api_key": "sk-1",
                "weight": 2,
            },
        },
    }


def ollamas_bodies(model: str) -> dict[str, dict[str, Any]]:
    """Those of Ollama's API."""
    return {
        "POST /api/chat": {
            "A question": {"model": model, "messages": _QUESTION, "stream": False},
            "Streamed": {"model": model, "messages": _QUESTION, "options": {"num_predict": 64}},
        },
        "POST /api/generate": {
            "A question": {"model": model, "prompt": _QUERY, "stream": False},
            "Load the model": {"model": model, "stream": False},
        },
        "POST /api/embed": {"Two texts": {"model": model, "input": ["The sun rises.", "Dawn breaks."]}},
        "POST /api/embeddings": {"A text": {"model": model, "prompt": "The sun rises."}},
        "POST /api/show": {"A model": {"model": model}},
        "POST /api/pull": {"From Hugging Face": {"model": f"hf.co/{_PULLED}:Q8_0"}},
        "DELETE /api/delete": {"A model": {"model": "smollm2-360m-instruct"}},
    }


def add(document: Mapping[str, Any], model: str) -> None:
    """Put them into an OpenAPI ``document``."""
    known = bodies(model) | ollamas_bodies(model)
    names = {"model": model, "name": _UPSTREAM, "adapter": _ADAPTER, **_IDS}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "path":
                    parameter["example"] = names.get(parameter["name"])
            content = operation.get("requestBody", {}).get("content", {}).get(JSON)
            if content is not None:  # forms have theirs in their schema
                examples = known.get(f"{method.upper()} {path}", {})
                content["examples"] = {name: {"value": body} for name, body in examples.items()}
