"""Purposes of models: what each is made for, as its files and the catalog tell before it is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from engines.models.gguf import GgufHeader
from engines.models.hf import read_json
from engines.text.ranking.pair_template import NAMES, is_for_pairs

Purpose = Literal["text", "embeddings", "rerank"]
Pooling = Literal["mean", "cls", "last", "rank"]

# Architectures of GGUF files whose models see a text as a whole and generate none.
ENCODERS = frozenset(
    {
        "bert",
        "nomic-bert",
        "nomic-bert-moe",
        "jina-bert-v2",
        "jina-bert-v3",
        "neo-bert",
        "modern-bert",
        "eurobert",
        "gemma-embedding",
        "llama-embed",
        "t5encoder",
    }
)
# Values of the key `pooling_type` in GGUF files; 0 is none.
_POOLING: dict[object, Pooling] = {1: "mean", 2: "cls", 3: "last", 4: "rank"}
# What sentence-transformers calls them, in `1_Pooling/config.json`.
_MODES: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
_HEADS = (b"cls.weight", b"cls.output.weight")
_LONGEST_HEADER = 64 * 2**20
_CLASSIFIER = "ForSequenceClassification"
_BARE = ("BertModel", "RobertaModel", "MPNetModel", "ModernBertModel", "DistilBertModel")


def purpose_of(pooling: Pooling | None) -> Purpose:
    """The purpose of a model whose states are pooled in this way; None is not at all."""
    if pooling is None:
        return "text"
    return "rerank" if pooling == "rank" else "embeddings"


def purpose_in_gguf(header: GgufHeader) -> tuple[Purpose, Pooling | None]:
    """The purpose, and the pooling that the file says, if it does."""
    pooling = _POOLING.get(header.metadata.get(f"{header.architecture}.pooling_type"))
    if pooling is None and header.architecture in ENCODERS:
        return "embeddings", None
    if pooling is None and any(is_for_pairs(template) for template in _templates(header)):
        return "rerank", None  # it says in words whether a document is relevant
    return purpose_of(pooling), pooling


def _templates(header: GgufHeader) -> Iterator[str]:
    """The templates that may be for pairs."""
    for key in ("tokenizer.chat_template", *(f"tokenizer.chat_template.{name}" for name in NAMES)):
        if isinstance(template := header.metadata.get(key), str):
            yield template


def has_rank_head(path: Path) -> bool:
    """Whether a GGUF file that does not say how it pools has a head that makes scores, without which
    llama.cpp would end the process."""
    with path.open("rb") as file:
        beginning = file.read(_LONGEST_HEADER)
    # Names stand behind their lengths.
    return any(len(name).to_bytes(8, "little") + name in beginning for name in _HEADS)


def has_classifier(architecture: str) -> bool:
    """Whether a model of this ``architecture``, as Hugging Face names it, has a head that makes scores."""
    return architecture.endswith(_CLASSIFIER)


def purpose_in_folder(path: Path, config: Mapping[str, Any]) -> tuple[Purpose, Pooling | None]:
    """As `purpose_in_gguf`, of a Hugging Face folder, where files of sentence-transformers say it."""
    names = config.get("architectures")
    architecture = str(names[0]) if isinstance(names, list) and names else ""
    if has_classifier(architecture):
        return "rerank", "rank"
    settings = path / "1_Pooling" / "config.json"
    if settings.is_file():
        modes = read_json(settings)
        return "embeddings", next((mode for key, mode in _MODES.items() if modes.get(key) is True), None)
    if (answers := answer_tokens(path)) is not None:
        return "text" if None in answers else "rerank", None
    is_encoder = architecture.endswith(_BARE) or (path / "modules.json").is_file()
    return ("embeddings" if is_encoder else "text"), None


def answer_tokens(path: Path) -> tuple[int | None, int | None] | None:
    """The tokens by which a reranker that generates says yes and no, in a folder of sentence-transformers'
    where its score is made of them; None for one of them that does not count, or for both."""
    settings = path / "1_LogitScore" / "config.json"
    if not settings.is_file():
        return None
    tokens = read_json(settings)
    yes, no = (tokens.get(f"{answer}_token_id") for answer in ("true", "false"))
    return (yes if isinstance(yes, int) else None), (no if isinstance(no, int) else None)
