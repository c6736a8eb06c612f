"""Examine this host: clock, space, open files, ledger, sources."""

import asyncio
import ctypes
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from drainer.doctor.checks.facts import HostFacts, Space, Trial
from drainer.errors import DrainerError
from drainer.runtime import host_limits
from drainer.runtime.threads import aside
from drainer.sources.protocol import Source

T = TypeVar("T")

LOOK_SECONDS = 15.0

_UNSYNCHRONISED = 0x0040
"""STA_UNSYNC of adjtimex(2)."""


class HostPlaces(Struct, frozen=True, kw_only=True):
    """What a drain will use here."""

    ledger: str
    #: Writes there and rolls back; returns why that proves nothing, or ''.
    write: Callable[[], str]
    #: What is where: folders, or files that a drain creates.
    folders: Mapping[str, Path]
    connections: int
    #: By name; opening one may also fail.
    sources: Mapping[str, Callable[[], Source]]


async def look_around(places: HostPlaces) -> HostFacts:
    """Return what was found; a step that hangs is a problem after LOOK_SECONDS."""
    ledger, sources, spaces = await asyncio.gather(
        _try(places.ledger, partial(_write, places)),
        _each(_try(n, partial(_read, n, m)) for n, m in places.sources.items()),
        _each(_space(what, path) for what, path in places.folders.items()),
    )
    return HostFacts(
        synchronised=is_synchronised(),
        spaces=spaces,
        files_allowed=host_limits.descriptors(),
        files_needed=host_limits.PER_CONNECTION * places.connections
        + host_limits.OTHERS,
        ledger=ledger,
        sources=sources,
    )


async def _each(doing: Iterable[Coroutine[Any, Any, T]]) -> tuple[T, ...]:
    return tuple(await asyncio.gather(*doing))


async def _try(name: str, work: Callable[[], Trial]) -> Trial:
    try:
        return await aside(work, LOOK_SECONDS)
    except TimeoutError:
        return Trial(name=name, problem=f"no answer within {LOOK_SECONDS:g} s")
    except (DrainerError, OSError) as error:
        return Trial(name=name, problem=str(error))


def _write(places: HostPlaces) -> Trial:
    unsure = places.write()
    return Trial(name=places.ledger, found="written, and rolled back", unsure=unsure)


def _read(name: str, make: Callable[[], Source]) -> Trial:
    first = next(iter(make().scan()), None)
    return Trial(name=name, found="readable" if first else "readable, and empty")


async def _space(what: str, path: Path) -> Space:
    try:
        return await aside(partial(space_of, what, path), LOOK_SECONDS)
    except (OSError, TimeoutError) as error:
        return Space(what=what, path=str(path), problem=str(error) or "no answer")


def space_of(what: str, path: Path) -> Space:
    """Return the space for a path that may not exist yet; OSError when unreadable."""
    there = next(each for each in (path, *path.parents) if each.exists())
    found = os.statvfs(there)
    return Space(
        what=what,
        path=str(path),
        free_bytes=found.f_bavail * found.f_frsize,
        free_inodes=found.f_favail if found.f_files else None,
    )


class _Timex(ctypes.Structure):
    """The first fields of struct timex, and padding for the others."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def is_synchronised() -> bool | None:
    """Return whether a time service sets the kernel's clock; None = unknown."""
    known = _Timex()  # modes = 0: nothing is set
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.byref(known))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else not known.status & _UNSYNCHRONISED
