"""Setting notes: what is said at the start of settings that are valid, but hardly meant so."""

from __future__ import annotations

from collections.abc import Iterator

from app.settings import Settings
from app.variables import ENV_FILE, Variable, Variables

_OPEN = {
    "api_keys": "the API is open to everyone who can reach it",
    "admin_api_keys": "models are managed without a key of their own",
}


def notes(settings: Settings, variables: Variables) -> Iterator[str]:
    """Of variables that say nothing, lists of keys without a key, a folder that is not there, and modes that
    settings contradict."""
    yield from variables.notes
    for name, effect in _OPEN.items():
        variable = variables.settings.get(name)
        if variable is not None and not getattr(settings, name) and _is_meant(name, variable):
            yield f"{name.upper()} ({variable.origin}) is set, but holds no key: {effect}"
    if not settings.api_keys and "api_keys" not in variables.settings:
        yield f"{_OPEN['api_keys']}: set API_KEYS to require a key"
    folder = variables.settings.get("model_base_path")
    if folder is not None and not settings.model_base_path.exists():
        place = settings.model_base_path.absolute()
        yield f"MODEL_BASE_PATH ({folder.origin}): there is no folder {place}; the first pull makes it"
    if settings.inference_mode == "multi_instance" and settings.max_concurrent_models == 1:
        yield "multi_instance keeps one model only, as MAX_CONCURRENT_MODELS is 1: raise it"


def _is_meant(name: str, variable: Variable) -> bool:
    """Whether a list without keys is worth a word: `.env.example` has an empty one for administrators."""
    return name == "api_keys" or bool(variable.value) or variable.origin != ENV_FILE
