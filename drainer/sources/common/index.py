"""Where names stand in a spool: one listing answers for many that have moved.

A listing costs as much as the spool has names. So one that took long is kept for a
multiple of that time: however many messages have moved, a tenth of the time goes into
looking for them. Whatever moves meanwhile may be missed; the next scan finds it.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator

KEPT = 10
"""So many times as long as a listing took it is believed."""
QUICK = 0.02
"""Seconds; a listing that takes less is made whenever somebody asks."""

Names = Iterable[tuple[str, str]]
"""What a name keeps when it is moved, without a slash, and its path in the spool."""


class PathIndex:
    """Paths by what their names keep; small enough for a million of them."""

    __slots__ = ("_list", "_names", "_until")

    def __init__(self, names: Callable[[], Names]) -> None:
        """Take what lists the spool; it is called when somebody asks."""
        self._list = names
        self._names = bytearray()
        self._until = 0.0

    def __reduce__(self) -> tuple[type["PathIndex"], tuple[Callable[[], Names]]]:
        """Pass to another process without what was listed."""
        return PathIndex, (self._list,)

    def find(self, key: str) -> Iterator[str]:
        """Yield the paths under which a name stood not long ago; raises OSError."""
        began = time.monotonic()
        if began > self._until:
            self._names = _packed(self._list())
            took = time.monotonic() - began
            self._until = began + KEPT * took if took > QUICK else began
        names, mark = self._names, b"\0%b/" % os.fsencode(key)
        at = names.find(mark)
        while at >= 0:
            start = at + len(mark)
            end = names.index(b"\0", start)
            yield os.fsdecode(bytes(names[start:end]))
            at = names.find(mark, end)


def _packed(names: Names) -> bytearray:
    """Return NUL, key, slash, path for each; no name has a NUL, and no key a slash."""
    packed = bytearray()
    for key, path in names:
        packed += b"\0%b/%b" % (os.fsencode(key), os.fsencode(path))
    packed += b"\0"
    return packed
