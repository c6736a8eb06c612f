"""Durations and sizes as people write them: 90s, 10m, 1h, 5d; 5MB, 64KiB."""

import contextlib
import re
from datetime import timedelta

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_MAX_WRITTEN = 100
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: object) -> timedelta:
    """Return the duration; several parts add up (1h30m). ValueError when bad."""
    if isinstance(text, timedelta):
        return text
    written = str(text).strip().lower()
    if written == "0":
        return timedelta(0)
    parts = _DURATION.findall(written) if len(written) <= _MAX_WRITTEN else []
    if parts and not _DURATION.sub("", written).strip():
        seconds = sum(float(n) * _SECONDS[unit] for n, unit in parts)
        with contextlib.suppress(OverflowError):
            return timedelta(seconds=seconds)
    message = f"{str(text)[:60]!r} is not a valid duration; write e.g. 90s, 10m, 1h, 5d"
    raise ValueError(message)


def format_duration(duration: timedelta) -> str:
    """Return the duration in its largest fitting unit: 90s, 10m, 5d."""
    seconds = duration.total_seconds()
    for unit in ("d", "h", "m"):
        if seconds >= _SECONDS[unit] and seconds % _SECONDS[unit] == 0:
            return f"{int(seconds // _SECONDS[unit])}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def describe_duration(seconds: float) -> str:
    """Return a duration for people, two units at most: 2 d 3 h, 4 m 10 s."""
    left = int(seconds)
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join(parts[:2])


def format_size(size: float) -> str:
    """Return a size for people: 4.1 kB, 23 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":  # noqa: PLR2004
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return ""
