"""Structured values as text columns: JSON, the same in every database."""

import json
from functools import lru_cache
from typing import Any

from msgspec import json as fast_json


def to_json(value: object) -> str:
    """Return compact JSON; lone surrogates, which msgspec refuses, are escaped."""
    try:
        return fast_json.encode(value).decode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))


def from_json(text: str) -> Any:  # noqa: ANN401 - whatever was written
    """Return what ``to_json`` wrote."""
    try:
        return fast_json.decode(text)
    except ValueError:
        return json.loads(text)


def storable(text: str) -> str:
    """Return text in the form every database takes: no NUL, no lone surrogate."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    return text if text.isascii() else text.encode(errors="replace").decode()


@lru_cache(maxsize=256)
def pairs_json(pairs: tuple[tuple[str, object], ...]) -> str:
    """Return the JSON object of hashable pairs; the same ones come often."""
    return to_json(dict(pairs))
