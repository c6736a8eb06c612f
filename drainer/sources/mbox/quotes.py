"""Undo how the writer of an mbox quoted lines that looked like a From_ line; pure.

The file does not show its variant, so drainer unquotes nothing unless the operator
names it:

- ``plain``: unchanged, for a file of unknown variant;
- ``mboxrd``: ``>`` before ``From ``, ``>From ``, ``>>From ``...: reversible;
- ``mboxo``: ``>`` before ``From `` only, so ``>From `` may have been either; drainer
  takes it for the likelier one, a quoted ``From ``;
- ``mboxcl``: as mboxo, with a Content-Length field;
- ``mboxcl2``: Content-Length, and nothing is quoted.
"""

import re
from collections.abc import Iterable, Iterator

VARIANTS = ("plain", "mboxrd", "mboxo", "mboxcl", "mboxcl2")

_HELD_BACK = re.compile(rb">+(?:F|Fr|Fro|From)?")
_QUOTED = {
    "mboxrd": re.compile(rb"^>(>*From )", re.MULTILINE),
    "mboxo": re.compile(rb"^>(From )", re.MULTILINE),
}
_QUOTED["mboxcl"] = _QUOTED["mboxo"]


def unquote(chunks: Iterable[bytes], variant: str) -> Iterator[bytes]:
    """Remove the quoting from the lines that looked like From_ lines.

    A run of ``>`` of any length is never kept in memory: it does not matter which
    one is removed, so all but one can be passed on before the end is known.
    """
    pattern = _QUOTED.get(variant)
    if pattern is None:
        yield from chunks
        return
    carry = b""
    at_start = True
    for chunk in chunks:
        if not chunk:
            continue
        data = carry + chunk
        # Do not judge a line that started in an earlier chunk and was passed on.
        skip = 0 if at_start else data.find(b"\n") + 1 or len(data)
        line = max(data.rfind(b"\n") + 1, skip)
        carry = data[line:] if _HELD_BACK.fullmatch(data, line) else b""
        at_start = bool(carry) or (line == len(data) and data.endswith(b"\n"))
        settled = data[: len(data) - len(carry)]
        if carry.startswith(b">>"):
            settled, carry, at_start = _shorten(settled, carry, variant)
        yield settled[:skip] + pattern.sub(rb"\1", settled[skip:])
    if carry:
        yield carry


def _shorten(settled: bytes, carry: bytes, variant: str) -> tuple[bytes, bytes, bool]:
    """Pass on what is decided about a line of several ``>``."""
    if variant != "mboxrd":  # only a single one is a quote
        return settled + carry, b"", False
    signs = len(carry) - len(carry.lstrip(b">")) - 1
    return settled + carry[:signs], carry[signs:], True
