"""The layout of Exim's spool directory.

A queue is flat, or split by the sixth character of the message id; Exim itself looks in
both. ``ID-H`` makes a message, ``ID-D`` has its body, ``ID-J`` what was done since.
``hdr.ID``, ``ID-K`` and ``*.eml`` are temporary.
"""

from drainer.errors import UsageError

MAIN, FROZEN = "input", "Finput"
"""The queue itself; where builds with move_frozen_messages put frozen mail."""

_SUFFIX_LENGTH = len("-H")
_SPLIT_AT = 5
_LOGS = {MAIN: "msglog", FROZEN: "Fmsglog"}


def stem_of(name: str) -> str:
    """Return the message id, if this is a ``-H`` or ``-D``; else the name."""
    is_file = name.endswith(("-H", "-D")) and len(name) > _SUFFIX_LENGTH
    return name[:-_SUFFIX_LENGTH] if is_file else name


def header_beside(name: str) -> str:
    """Return the ``-H`` that a ``-D``, ``-J`` or ``-K`` belongs to; else ''."""
    is_part = name.endswith(("-D", "-J", "-K"))
    return f"{name[:-_SUFFIX_LENGTH]}-H" if is_part else ""


def queue_parts(queue: str) -> tuple[str, ...]:
    """Return the directories of a queue; UsageError for an invalid name."""
    name, _, part = queue.rpartition("/")
    if part in (MAIN, FROZEN) and (not name or _is_name(name)):
        return (name, part) if name else (part,)
    if not _is_name(queue):
        message = f"not a queue of Exim: {queue!r}"
        hint = f"name {MAIN}, {FROZEN}, NAME or NAME/{FROZEN} (a folder of the spool)"
        raise UsageError(message, hint=hint)
    return (queue, MAIN)


def _is_name(queue: str) -> bool:
    is_path = "/" in queue or "\0" in queue or queue in ("", ".", "..")
    return not is_path and queue not in (MAIN, FROZEN)


def split_directories(stem: str) -> tuple[tuple[str, ...], ...]:
    """Return the directories below a queue that may contain a message."""
    letter = stem[_SPLIT_AT : _SPLIT_AT + 1]
    return ((), (letter,)) if letter and letter not in "./" else ((),)


def log_parts(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the directory of the message log next to a message's directory."""
    return tuple(_LOGS.get(part, part) for part in parts)
