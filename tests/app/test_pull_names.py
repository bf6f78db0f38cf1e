"""Names for pulls, as people have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.pull_names import PullName, read_name
from app.pull_requests import Usefulness, named_pull, usefulness
from engines.errors import ModelFileNotFound, RequestError
from engines.machine.footprint import Footprint
from engines.machine.platform import Facts
from engines.models.library import Library

HF, MS = "huggingface", "modelscope"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("org/name", {}),
        (" org/name\n", {}),
        ("org/name:Q4_K_M", {"quantization": "Q4_K_M"}),
        ("org/name:q8_0", {"quantization": "q8_0"}),
        ("org/name:latest", {}),
        ("hf.co/org/name", {"source": HF}),
        ("hf.co/org/name:UD-Q4_K_XL", {"source": HF, "quantization": "UD-Q4_K_XL"}),
        ("hf://org/name", {"source": HF}),
        ("huggingface.co/org/name:iq4_xs", {"source": HF, "quantization": "iq4_xs"}),
        ("https://huggingface.co/org/name", {"source": HF}),
        ("HTTPS://HuggingFace.co/org/name/", {"source": HF}),
        ("https://www.huggingface.co/org/name?library=gguf#usage", {"source": HF}),
        ("https://huggingface.co/org/name/tree/main", {"source": HF}),
        ("https://huggingface.co/org/name/tree/v1.5", {"source": HF, "revision": "v1.5"}),
        ("https://huggingface.co/org/name/tree/main/Q4", {"source": HF, "include": ("Q4/*",)}),
        (
            "https://huggingface.co/org/name/blob/main/m-Q4_0.gguf",
            {"source": HF, "include": ("m-Q4_0.gguf",)},
        ),
        (
            "https://huggingface.co/org/name/resolve/main/a%20b.gguf?download=true",
            {"source": HF, "include": ("a b.gguf",)},
        ),
        (
            "https://huggingface.co/org/name/resolve/dev/sub/m-00002-of-00003.gguf",
            {"source": HF, "revision": "dev", "include": ("sub/m-*-of-00003.gguf",)},
        ),
        ("modelscope.cn/models/org/name", {"source": MS}),
        ("https://www.modelscope.cn/models/org/name/summary", {"source": MS}),
        ("https://modelscope.cn/models/org/name/files", {"source": MS}),
        (
            "https://modelscope.cn/models/org/name/resolve/master/m.gguf",
            {"source": MS, "include": ("m.gguf",)},
        ),
        (
            "https://modelscope.cn/models/org/name/file/view/master/m.gguf",
            {"source": MS, "include": ("m.gguf",)},
        ),
    ],
)
def test_names_that_people_have(text: str, said: dict[str, Any]) -> None:
    assert read_name(text) == PullName("org/name", **said)
    assert read_name(text).is_repository


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com/org/name", "ftp://huggingface.co/org/name", "https://huggingface.co/org",
        "https://huggingface.co/org/name/resolve/main", "https://huggingface.co/org/name/discussions/3",
        "https://huggingface.co/datasets/org/name/x", "https://", "https://huggingface.co/../..",
        "hf.co/a", "http://[x",
    ],
)  # fmt: skip
def test_addresses_of_something_else(text: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"org/name:QUANT"):
        named_pull(library(tmp_path), text)


def library(base: Path, catalog: str = "") -> Library:
    (base / "models.yaml").write_text(catalog)
    return Library(base, base / "models.yaml")


def test_the_catalogs_names_come_first(tmp_path: Path) -> None:
    """Also where they look like something else; a quantisation counts more than the catalog's files."""
    known = library(
        tmp_path,
        """
        models:
          - {name: Big-GGUF, aliases: ["big:7b", big], hub: {huggingface: o/big, include: "*q4_k_m*"}}
          - {name: o/other, hub: {modelscope: p/other, revision: v2}}
        """,
    )

    def found(name: str) -> tuple[Any, ...]:
        pull = named_pull(known, name)
        request = pull.request
        return (
            pull.name,
            request.repo,
            request.source,
            request.include,
            request.quantization,
            request.revision,
        )

    assert found("big:7b") == found("BIG") == ("Big-GGUF", "o/big", HF, ("*q4_k_m*",), None, None)
    assert found("big:7b:q8_0") == ("Big-GGUF", "o/big", HF, (), "q8_0", None)
    assert found("o/other") == ("o/other", "p/other", MS, (), None, "v2")
    assert found("hf.co/o/new:Q4_0") == ("new", "o/new", HF, (), "Q4_0", None)
    for name in ("nobody", "nobody:q4_0", "../..", "a/b/c", "", "x" * 5000):
        with pytest.raises(ModelFileNotFound, match="org/name:Q4_K_M"):
            named_pull(known, name)


def test_what_would_be_useful_here() -> None:
    facts = Facts("linux", "x86_64", "3.11", 2, 2, 16, 8, packages={"llama_cpp": ""})
    found = usefulness(facts, "auto", Footprint(ram=10, gpu=5))
    assert (list(found.unusable), found.largest) == (["hf"], 15)
    assert "mlx" in found.unusable["hf"].lower()
    assert usefulness(facts, "fake", Footprint(ram=1)) == Usefulness({}, 1)
