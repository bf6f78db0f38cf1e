"""Simon Willison's `llm`, which reads its models from a file."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import openai

from clients.expectations import MAX_TOKENS, Answer, Asked, Expectations, Library
from clients.server import API_KEY, BASE_URL

# In the folder that `llm logs path` shows, beside logs.db.
MODELS = """\
# docs: begin
- model_id: enginehouse
  model_name: SmolLM2-135M-Instruct
  api_base: BASE_URL
  api_key_name: enginehouse
# docs: end
"""
COMMANDS = """\
# docs: begin
llm keys set enginehouse --value API_KEY
llm -m enginehouse -o max_tokens 64 "What is the capital of France?"
# docs: end
"""


def filled(text: str, asked: Asked = Asked()) -> str:  # noqa: B008
    named = text.replace("SmolLM2-135M-Instruct", asked.model)
    return named.replace("BASE_URL", BASE_URL).replace("API_KEY", API_KEY)


def model(asked: Asked) -> Any:
    folder = Path(os.environ["LLM_USER_PATH"])
    folder.mkdir(exist_ok=True)
    (folder / "extra-openai-models.yaml").write_text(filled(MODELS, asked))
    models = {each.model_id: each for each in _registered()}
    return models["enginehouse"]


def _registered() -> list[Any]:
    from llm.default_plugins import openai_models

    found: list[Any] = []
    openai_models.register_models(lambda model, *others, **options: found.append(model))
    return found


class SimonsLLM(Library):
    missing_model = openai.NotFoundError
    wrong_key = openai.AuthenticationError
    long_prompt = openai.BadRequestError
    passes_on_finish_reason = False

    def _prompt(self, asked: Asked, **options: Any) -> Any:
        return model(asked).prompt(
            asked.prompt, key=asked.api_key, temperature=0, max_tokens=MAX_TOKENS, **options
        )

    def ask(self, asked: Asked) -> Answer:
        response = self._prompt(asked, stream=False)
        text, usage = response.text(), response.usage()
        return Answer(text, None, usage.input, usage.output)

    def stream(self, asked: Asked) -> list[str]:
        return list(self._prompt(asked, stream=True))


class TestSimonsLLM(Expectations):
    library = SimonsLLM()


def test_the_example() -> None:
    model(Asked())  # writes the file
    programs = Path(sys.executable).parent
    environment = os.environ | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    for line in filled(COMMANDS).splitlines():
        if not line.startswith("#"):
            done = subprocess.run(shlex.split(line), env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
