"""JSON from strangers: decoded only if its nesting is shallow."""

import json
import re
from typing import Any

MAX_DEPTH = 64
"""How deep objects and lists may nest; ours and those of other programs need 8."""

_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def parse_json(data: bytes | str) -> Any:  # noqa: ANN401 - any JSON value
    """Return the value of JSON (bytes in UTF-8); ValueError if it is none."""
    text = data if isinstance(data, str) else data.decode("utf-8-sig")
    check_depth(text)
    return json.loads(text)


def check_depth(text: str) -> None:
    """Raise ValueError if JSON nests too deeply for a decoder.

    A decoder that meets the limit of recursion raises RecursionError, but so does each
    finalizer that the garbage collector happens to run inside of it.
    """
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for token in _TOKEN.finditer(text):
        first = text[token.start()]
        if first in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(f"nested more than {MAX_DEPTH} deep")
        elif first in "]}":
            depth -= 1
