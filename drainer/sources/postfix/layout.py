"""The layout of a Postfix queue directory (mail_queue.c, dir_forest.c).

A queue is flat or hashed: one directory per leading character of the queue id, or, for
long ids, of the five hexadecimal digits of its microseconds.
"""

from collections.abc import Iterator

DEFAULT_QUEUES = ("incoming", "active", "deferred")
HELD = "hold"
UNCLEANED = "maildrop"
"""The queue of local submissions that Postfix has not processed: not yet mail."""
QUEUES = (*DEFAULT_QUEUES, HELD, "corrupt", UNCLEANED)

_HASH_DEPTHS = 4
_LONG_ID_DIGITS = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"
_LONG_ID_SECONDS, _LONG_ID_MICROSECONDS = 6, 4


def hash_directories(queue_id: str) -> Iterator[tuple[str, ...]]:
    """Yield the directories that may contain a file of that id, flat first."""
    stem = _hash_string(queue_id).ljust(_HASH_DEPTHS, "_")
    for depth in range(_HASH_DEPTHS + 1):
        yield tuple(stem[:depth])


def _hash_string(queue_id: str) -> str:
    mark = queue_id.rfind("z")
    if mark < _LONG_ID_SECONDS + _LONG_ID_MICROSECONDS:
        return queue_id
    microseconds = 0
    for digit in queue_id[mark - _LONG_ID_MICROSECONDS : mark]:
        microseconds = microseconds * len(_LONG_ID_DIGITS) + _LONG_ID_DIGITS.find(digit)
    return f"{max(microseconds, 0):05X}"
