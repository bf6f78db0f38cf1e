"""Names for pulls, as people have them: a repository, one of its quantisations, or a pasted address."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import unquote, urlsplit

from engines.errors import RequestError
from engines.models.pull.puller import SourceName

_PART = r"\w[\w.-]{0,95}"
_REPOSITORY = re.compile(rf"{_PART}/{_PART}")
_QUANTISED = re.compile(r"(?P<name>.+?):(?P<quantization>[\w.-]{1,64})")
_HOSTS: dict[str, SourceName] = {
    "hf.co": "huggingface",
    "huggingface.co": "huggingface",
    "modelscope.cn": "modelscope",
    "modelscope.ai": "modelscope",
}
# What stands in an address between a repository and a revision, and whether a file comes then.
_VIEWS: dict[str, Literal["file", "folder"]] = {
    "resolve": "file",
    "blob": "file",
    "raw": "file",
    "tree": "folder",
    "file": "file",  # ModelScope: /file/view/REVISION/FILE
    "files": "folder",
    "summary": "folder",
}
_DEFAULT_REVISIONS = ("main", "master")
_PARTS = re.compile(r"-\d{5}(?=-of-\d{5}\.gguf$)")
# Ollama's word for the tag that counts where nobody names one.
_LATEST = "latest"


@dataclass(frozen=True, slots=True)
class PullName:
    """What a name says: the repository or catalog name, and what of it is wanted, as far as it says."""

    name: str
    quantization: str | None = None
    source: SourceName | None = None
    revision: str | None = None
    include: tuple[str, ...] = ()

    @property
    def is_repository(self) -> bool:
        return _REPOSITORY.fullmatch(self.name) is not None


def read_name(text: str) -> PullName:
    """What ``text`` says. Raises `RequestError` for the address of something else."""
    text = text.strip()
    scheme, mark, rest = text.partition("://")
    if mark and scheme.lower() == "hf":
        text = f"hf.co/{rest}"
    elif mark:
        if scheme.lower() not in ("http", "https"):
            raise _unknown(text)
        try:
            parts = urlsplit(text)
        except ValueError:  # of a host in brackets
            raise _unknown(text) from None
        text = f"{parts.hostname or ''}{unquote(parts.path)}"
    host, _, path = text.partition("/")
    source = _HOSTS.get(host.lower().removeprefix("www."))
    if source is None:
        if mark:
            raise _unknown(text)
        return _split(text)
    return replace(_of_path(path, text), source=source)


def _of_path(path: str, address: str) -> PullName:
    """What stands behind a hub's host: ``org/name[:QUANT]``, or the path of one of its pages."""
    steps = [step for step in path.split("/") if step]
    if steps[:1] == ["models"]:  # ModelScope
        steps = steps[1:]
    found = _split("/".join(steps[:2]))
    if not found.is_repository:
        raise _unknown(address)
    if len(steps) == 2:
        return found
    view, rest = _VIEWS.get(steps[2]), steps[3:]
    if view is None:
        raise _unknown(address)
    if steps[2] == "file" and rest[:1] == ["view"]:
        rest = rest[1:]
    revision = rest[0] if rest and rest[0] not in _DEFAULT_REVISIONS else None
    inside = "/".join(rest[1:])
    if view == "folder":
        return replace(found, revision=revision, include=(f"{inside}/*",) if inside else ())
    if not inside:
        raise _unknown(address)
    # Of a model in several files they are all wanted, whichever was pasted.
    return replace(found, revision=revision, include=(_PARTS.sub("-*", inside),))


def _split(text: str) -> PullName:
    match = _QUANTISED.fullmatch(text)
    if match is None:
        return PullName(text)
    wanted = match["quantization"]
    return PullName(match["name"], None if wanted.lower() == _LATEST else wanted)


def _unknown(text: str) -> RequestError:
    return RequestError(
        f"{text[:200]!r} is no address of a model: give org/name, org/name:QUANT, or the address of a model "
        "or of one of its files at huggingface.co or modelscope.cn",
        param="model_name",
    )
