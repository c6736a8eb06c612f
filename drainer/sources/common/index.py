"""The paths of names in a spool: one listing finds many messages that moved.

A listing takes longer the more names the spool has. So a slow one is kept for a
multiple of the time it took: searching takes a tenth of the time, however many messages
moved. It may miss messages that move in the meantime; the next scan finds them.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator

KEPT = 10
"""A listing is valid for this many times as long as it took."""
QUICK = 0.02
"""In seconds; a faster listing is made for every search."""

Names = Iterable[tuple[str, str]]
"""The part of a name that stays when it moves, without a slash; its path."""


class PathIndex:
    """Paths by the stable part of their names; small enough for a million of them."""

    __slots__ = ("_list", "_names", "_until")

    def __init__(self, names: Callable[[], Names]) -> None:
        """Take the function that lists the spool; it is called when needed."""
        self._list = names
        self._names = bytearray()
        self._until = 0.0

    def __reduce__(self) -> tuple[type["PathIndex"], tuple[Callable[[], Names]]]:
        """Pickle without the listing."""
        return PathIndex, (self._list,)

    def find(self, key: str) -> Iterator[str]:
        """Yield the paths that a name had recently; raises OSError."""
        began = time.monotonic()
        if began > self._until:
            self._names = _pack(self._list())
            took = time.monotonic() - began
            self._until = began + KEPT * took if took > QUICK else began
        names, mark = self._names, b"\0%b/" % os.fsencode(key)
        at = names.find(mark)
        while at >= 0:
            start = at + len(mark)
            end = names.index(b"\0", start)
            yield os.fsdecode(bytes(names[start:end]))
            at = names.find(mark, end)


def _pack(names: Names) -> bytearray:
    """Return NUL, key, slash, path for each; no name has a NUL, and no key a slash."""
    packed = bytearray()
    for key, path in names:
        packed += b"\0%b/%b" % (os.fsencode(key), os.fsencode(path))
    packed += b"\0"
    return packed
