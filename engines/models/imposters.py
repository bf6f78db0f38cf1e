"""Imposters: files with a model's name and something else in them, told by their first bytes."""

from __future__ import annotations

_BEGINNING = 64
_LFS_POINTER = b"version https://git-lfs"
_WEB_PAGE = (b"<!doctype", b"<html", b"<head", b"<?xml")


def imposter(beginning: bytes) -> str | None:
    """What a file that begins like this is instead of a model, and what to do; None if it may be one."""
    if not beginning:
        return "is empty: download it again"
    start = beginning[:_BEGINNING].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(_LFS_POINTER):
        return (
            "is a Git LFS pointer, which stands for a file that was not fetched: run `git lfs pull` where it "
            "was cloned, or `enginehouse pull` the model"
        )
    if start.startswith(_WEB_PAGE):
        return (
            "is a web page, as comes where a download needs a login or its address is wrong: "
            "`enginehouse pull` the model"
        )
    return None
