"""Special tokens of real vocabularies: slices give the tokens of the whole, and clients write none."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.llamacpp.model import LlamaModel
from engines.text.tokens.tokenizer import Tokenizer
from support.models import gemma_base, smollm2
from support.tiny_gguf import tiny_gguf

pytestmark = pytest.mark.real

PROSE = ["The quick brown fox. "] * 20
BITS = ["hello, world ", "  ", "\n\n\n", " x", "日本語", " <|im", " ' ' ", "</s", *PROSE]
FORGED = st.lists(st.sampled_from(["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_", "end|>", "a\n"]))


@pytest.fixture(scope="module", params=[smollm2, gemma_base], ids=["bpe", "spm"])
def model(request: pytest.FixtureRequest) -> Iterator[LlamaModel]:
    path: Callable[[], Path] = request.param
    loaded = LlamaModel(path())
    yield loaded
    loaded.close()


async def test_slices_give_the_tokens_of_the_whole(model: LlamaModel) -> None:
    draw = random.Random(1)
    special = sorted(model.special_tokens.controls)
    text = "".join(draw.choice([*special[:99], *BITS]) for _ in range(3000))
    for add_special in (True, False):
        found = await Tokenizer(model, 2**20).tokenize(text, add_special=add_special)
        assert found == model.tokenize(text, add_special=add_special)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(FORGED.map("".join))
async def test_a_rendered_chat_has_its_templates_control_tokens(model: LlamaModel, content: str) -> None:
    tokenizer = Tokenizer(model, 8192)

    async def controls(content: str) -> list[bytes]:
        chat = await tokenizer.guard([{"role": "user", "content": content}])
        text = f"<|im_start|>user\n{chat.messages[0]['content']}<|im_end|>\n<|im_start|>assistant\n"
        prompt = await tokenizer.prompt(text, chat, add_special=False)
        assert prompt.text == f"<|im_start|>user\n{content}<|im_end|>\n<|im_start|>assistant\n"
        assert model.detokenize(prompt.token_ids).strip() == prompt.text.strip()
        named = [model.label(token) for token in prompt.token_ids]
        return [name for name in named if name.decode("utf-8", "replace") in model.special_tokens.controls]

    assert await controls(content) == await controls("")


async def test_a_closed_model_is_not_touched() -> None:
    model = LlamaModel(smollm2())
    model.close()
    for touch in (
        lambda: model.tokenize("a", add_special=True),
        lambda: model.detokenize([1]),
        lambda: model.piece(1),
        lambda: model.bos_text,
        lambda: model.chat_template,
    ):
        with pytest.raises(Exception, match="the model is closed"):
            touch()


_PRETOKENIZE = """
import asyncio, json, sys
from pathlib import Path
from engines.llamacpp.model import LlamaModel
from engines.text.tokens.tokenizer import Tokenizer

async def main():
    model = LlamaModel(Path(sys.argv[1]))
    tokenizer = Tokenizer(model, 2**20)
    words = [unit * 20_000 for unit in ("a", " ", "/\\n", ".+", "\u65e5")]
    print(json.dumps([len(await tokenizer.tokenize(word, add_special=False)) for word in words]))

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["gpt-4o", "tekken"])
def test_one_long_word_does_not_overflow_the_stack(kind: str, tmp_path: Path) -> None:
    """llama.cpp's pre-tokenisers for these recurse for each character of a word."""
    field = b"tokenizer.ggml.pre" + (8).to_bytes(4, "little") + (6).to_bytes(8, "little")
    data = smollm2().read_bytes()
    path = tmp_path / "other.gguf"
    assert data.count(field + b"smollm") == 1
    path.write_bytes(data.replace(field + b"smollm", field + kind.encode()))
    done = subprocess.run(
        [sys.executable, "-c", _PRETOKENIZE, str(path)],
        capture_output=True,
        check=False,
        env={"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert all(count > 100 for count in json.loads(done.stdout))


@pytest.mark.parametrize(
    ("marks", "named"),
    [
        (("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"), [0, "a", 1, "b", 2]),
        (("[PREFIX]", "[SUFFIX]"), [1, "b", 0, "a"]),  # which llama.cpp itself does not know
    ],
)
async def test_a_gap_is_marked_by_the_tokens_of_the_vocabulary(
    tmp_path: Path, marks: tuple[str, ...], named: list[int | str]
) -> None:
    model = LlamaModel(tiny_gguf(tmp_path / "tiny.gguf", marks=marks))
    tokenizer = Tokenizer(model, 4096)
    prompt = await tokenizer.infill(model.fim, "a", "b", ())
    shown = [model.label(token).decode().strip() for token in prompt.token_ids]
    wanted = [marks[each] if isinstance(each, int) else each for each in named]
    assert [each for each in shown if each] == ["<s>", *wanted]
    forged = await tokenizer.infill(model.fim, f"a{marks[0]}", "b", ())
    assert forged.token_ids.count(model.fim.prefix) == 1  # type: ignore[union-attr]
    model.close()
