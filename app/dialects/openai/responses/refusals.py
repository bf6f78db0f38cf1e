"""Fields of OpenAI's Responses that are known and change nothing here; where one would, it is refused."""

from __future__ import annotations

from app.dialects.openai.responses.schema import ResponseRequest
from app.dialects.openai.unsupported import Table, always, never, refuse

# As in `app.dialects.openai.unsupported`.
_RESPONSES: Table = {
    "access_programs": ("a programme of OpenAI's", always),
    "background": ("an answer in the background", lambda value: value is False),
    "background_options": ("an answer in the background", always),
    "client_metadata": ("notes of the client", always),
    "context_management": ("compaction of the conversation", lambda value: value == []),
    "conversation": ("OpenAI's Conversations API", never),
    "image": ("a way to take images in", always),
    "moderation": ("moderation of prompt and answer", never),
    "n": ("several answers to one request", lambda value: value == 1),
    "prompt": ("a prompt that is stored at OpenAI", never),
    "prompt_cache_options": ("a way to use OpenAI's prompt cache", always),
    "prompt_cache_retention": ("a time in OpenAI's prompt cache", always),
    "prompt_logprobs": ("log probabilities of the prompt in a response", never),
    "return_token_ids": ("token ids in a response", lambda value: value is False),
    "service_tier": ("a price for a speed", always),
    "truncation": ("truncation of the input", lambda value: value == "disabled"),
}
_TEXT: Table = {"verbosity": ("a choice of verbosity", lambda value: value == "medium")}


def refuse_in_response(body: ResponseRequest) -> None:
    """Raise `UnsupportedFeature` for the first field that asks for what is not there."""
    refuse(body, _RESPONSES)
    if body.text is not None:
        refuse(body.text, _TEXT, "text.")
