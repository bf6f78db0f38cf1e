"""Real conversions of a small model, in the real child process."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from engines.errors import ModelLoadError
from engines.models.convert import plan
from engines.models.convert.converter import Converted, ensure_converted
from engines.models.facts import describe
from engines.registry import ENGINES
from support.models import bundled, smollm2_folder

pytestmark = pytest.mark.real

SLOW = "iq4_nl"  # takes half a minute of computing, where the others take one second


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The bundled model, in Q4_1, in a folder of its own."""
    folder = tmp_path / "models"
    folder.mkdir()
    return Path(shutil.copy(bundled(), folder / "tiny.Q4_1.gguf"))


class Conversion:
    def __init__(self, source: Path, quantization: str = "q8_0") -> None:
        self.source = source
        self.quantization = quantization
        self.fallback = source.parent.parent / "fallback"
        self.progress: list[float] = []

    async def run(self) -> Converted:
        quantizer = ENGINES["mlx" if self.source.is_dir() else "llama_cpp"].quantizer
        assert quantizer is not None
        return await ensure_converted(
            self.source,
            self.quantization,
            quantizer,
            fallback_dir=self.fallback,
            on_progress=self.progress.append,
        )

    async def half_way(self) -> asyncio.Task[Converted]:
        task = asyncio.create_task(self.run())
        while not any(0 < fraction < 1 for fraction in self.progress):
            assert not task.done(), task
            await asyncio.sleep(0.005)
        return task


def workers() -> list[psutil.Process]:
    return [
        p for p in psutil.Process().children() if "engines.models.convert.worker" in " ".join(p.cmdline())
    ]


async def test_converts_once(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "engines.models.convert")
    first = Conversion(model)
    made = await first.run()
    assert made == Converted(model.parent / ".enginehouse" / "tiny.Q4_1.q8_0.gguf", made=True)
    assert describe(made.path).quantization == "Q8_0"
    assert first.progress == sorted(first.progress)
    assert len(first.progress) > 100
    assert first.progress[-1] == 1.0
    second = Conversion(model)
    assert await second.run() == Converted(made.path, made=False)
    assert second.progress == []
    assert "is quantised already" in caplog.messages[0]
    assert "converted tiny.Q4_1.gguf to q8_0 in" in caplog.messages[1]
    assert "using the q8_0 kept in" in caplog.messages[2]
    assert sorted(os.listdir(made.path.parent)) == ["tiny.Q4_1.q8_0.gguf", "tiny.Q4_1.q8_0.gguf.json"]


def touch(model: Path) -> None:
    os.utime(model)


def damage_the_stamp(model: Path) -> None:
    (model.parent / ".enginehouse" / "tiny.Q4_1.q8_0.gguf.json").write_text("{")


def lose_the_result(model: Path) -> None:
    (model.parent / ".enginehouse" / "tiny.Q4_1.q8_0.gguf").unlink()


@pytest.mark.parametrize("change", [touch, damage_the_stamp, lose_the_result])
async def test_converts_again_after_a_change(model: Path, change: Callable[[Path], None]) -> None:
    await Conversion(model).run()
    change(model)
    assert (await Conversion(model).run()).made
    assert not (await Conversion(model).run()).made


async def test_a_newer_quantizer_converts_again(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await Conversion(model).run()
    monkeypatch.setattr(plan.importlib.metadata, "version", lambda package: "999")
    assert (await Conversion(model).run()).made


async def test_what_is_there_already_is_returned(model: Path) -> None:
    assert await Conversion(model, "Q4_1").run() == Converted(model, made=False)
    assert os.listdir(model.parent) == [model.name]


async def test_a_packages_folder_is_left_alone(model: Path) -> None:
    (model.parent / "__init__.py").touch()
    conversion = Conversion(model)
    made = await conversion.run()
    assert made.path.parent == conversion.fallback / ".enginehouse"
    assert made.path.name.endswith("-tiny.Q4_1.q8_0.gguf")
    assert sorted(os.listdir(model.parent)) == ["__init__.py", model.name]
    assert not (await Conversion(model).run()).made


async def test_a_folder_that_cannot_be_written_to(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write everywhere, so that permissions alone prove nothing.
    monkeypatch.setattr(plan.os, "access", lambda path, mode: not (path == model.parent and mode & os.W_OK))
    conversion = Conversion(model)
    assert (await conversion.run()).path.parent == conversion.fallback / ".enginehouse"


@pytest.mark.parametrize(
    ("quantization", "message"),
    [("q9_9", "choose one of q4_0, q4_1, .*q4_k_m"), ("iq1_s", "choose one of"), ("4bit", "choose one of")],
)
async def test_unknown_types_are_told_the_known(model: Path, quantization: str, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        await Conversion(model, quantization).run()


async def test_a_damaged_source(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-1000])
    with pytest.raises(ModelLoadError, match="cut off"):
        await Conversion(model).run()
    assert os.listdir(model.parent) == [model.name]


async def test_what_llama_cpp_says_is_passed_on(model: Path) -> None:
    content = model.read_bytes()
    model.write_bytes(content.replace(b"llama.block_count", b"llama.block_cunt_", 1))
    with pytest.raises(ModelLoadError, match=r"llama\.cpp cannot convert .*block_count"):
        await Conversion(model).run()
    assert os.listdir(model.parent) == [model.name]


async def test_a_full_disk(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = model.parent / ".enginehouse" / "tiny.Q4_1.q8_0.gguf.part"
    monkeypatch.setenv("PYTHONPATH", str(model.parent))
    (model.parent / "sitecustomize.py").write_text(_NO_SPACE)
    with pytest.raises(ModelLoadError, match=r"needs 0\.28 GB but the disk of .* has 0\.20 GB free"):
        await Conversion(model).run()
    assert not part.parent.exists()


_NO_SPACE = """
import shutil
real = shutil.disk_usage
shutil.disk_usage = lambda path: real(path)._replace(free=200 * 10**6)
"""


async def test_cancelling_leaves_nothing(model: Path) -> None:
    task = await Conversion(model, SLOW).half_way()
    (worker,) = workers()
    assert os.listdir(model.parent / ".enginehouse")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(1):
            await task
    assert not worker.is_running()
    assert os.listdir(model.parent) == [model.name]


async def test_a_killed_worker_leaves_nothing_and_the_next_attempt_works(model: Path) -> None:
    task = await Conversion(model, SLOW).half_way()
    (worker,) = workers()
    worker.kill()
    with pytest.raises(ModelLoadError, match=f"to {SLOW} failed: the process was killed by SIGKILL"):
        await task
    assert os.listdir(model.parent) == [model.name]
    assert (await Conversion(model).run()).made


async def test_what_a_killed_server_left_is_replaced(model: Path) -> None:
    folder = model.parent / ".enginehouse"
    folder.mkdir()
    for name in ("part", "lock"):
        (folder / f"tiny.Q4_1.q8_0.gguf.{name}").write_bytes(b"half of it")
    assert (await Conversion(model).run()).made
    assert len(os.listdir(folder)) == 2


async def test_concurrent_calls_convert_once(model: Path) -> None:
    results = await asyncio.gather(*(Conversion(model).run() for _ in range(3)))
    assert sorted(result.made for result in results) == [False, False, True]
    assert len({result.path for result in results}) == 1


async def test_a_waiter_takes_over_when_the_first_is_cancelled(model: Path) -> None:
    first = await Conversion(model, SLOW).half_way()
    second = Conversion(model, SLOW)
    task = asyncio.create_task(second.run())
    await asyncio.sleep(0.3)
    assert second.progress == []
    first.cancel()
    while not second.progress:
        await asyncio.sleep(0.005)
    task.cancel()
    await asyncio.gather(first, task, return_exceptions=True)
    assert os.listdir(model.parent) == [model.name]


class TestMlx:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        pytest.importorskip("mlx_lm")
        return Path(shutil.copytree(smollm2_folder(), tmp_path / "tiny"))

    async def test_converts_once_and_loads(self, folder: Path) -> None:
        made = await Conversion(folder, "4bit").run()
        assert made == Converted(folder / ".enginehouse" / "tiny.4bit", made=True)
        assert describe(made.path).quantization == "4bit"
        assert describe(made.path).weight_bytes < 0.3 * describe(folder).weight_bytes
        assert await Conversion(folder, "q4").run() == Converted(made.path, made=False)
        assert await Conversion(made.path, "q4").run() == Converted(made.path, made=False)
        with pytest.raises(ModelLoadError, match=r"quantised already \(4bit\)"):
            await Conversion(made.path, "8bit").run()
        # A process of its own: MLX would stay in this one.
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", _LOAD, str(made.path)], check=True)

    async def test_unknown_types_are_told_the_known(self, folder: Path) -> None:
        with pytest.raises(ModelLoadError, match="choose one of 4bit, 8bit, q4, q8"):
            await Conversion(folder, "q4_k_m").run()

    async def test_what_mlx_says_is_passed_on(self, folder: Path) -> None:
        config = folder / "config.json"
        config.write_text(config.read_text().replace('"llama"', '"unheard_of"'))
        with pytest.raises(ModelLoadError, match=r"MLX cannot convert .*unheard_of not supported"):
            await Conversion(folder, "8bit").run()
        assert ".enginehouse" not in os.listdir(folder)


_LOAD = """
import sys
from mlx.nn import QuantizedLinear
from mlx_lm import load
model, tokenizer = load(sys.argv[1])
linear = model.layers[0].self_attn.q_proj
assert isinstance(linear, QuantizedLinear) and linear.bits == 4, linear
assert tokenizer.chat_template
"""
