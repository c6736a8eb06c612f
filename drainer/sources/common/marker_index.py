"""Which sources on this host a ledger still has a marker in.

Such a source may still hold mail that the ledger knows as delivered.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from drainer.sources.common.claim import look
from drainer.sources.common.files import unescape_name
from drainer.sources.common.marker import MARKER, MarkerPlace, place_of


class MarkedSource(NamedTuple):
    """A source, and the marker that names the ledger."""

    url: str
    place: MarkerPlace


def path_of(url: str) -> Path | None:
    """Return the folder or file of a source's URL; None if it has none."""
    rest = url.partition(":")[2].removeprefix("live=")
    if not rest.startswith("/") or rest.startswith("//"):
        return None
    path = Path(rest)
    return path if path.exists() else Path(unescape_name(rest))


def marked_sources(
    ledger: str, urls: Iterable[str], state_folders: Sequence[Path]
) -> list[MarkedSource]:
    """Return the sources whose marker names a ledger, by its id.

    Looks into the sources of these URLs, one folder deep, and into the state folders.
    Raises ClaimConflict when a marker cannot be read.
    """
    places = [
        *(place for url in urls for place in _places(path_of(url))),
        *(MarkerPlace(each, name) for each in state_folders for name in _names(each)),
    ]
    found = []
    for place in dict.fromkeys(places):
        marker, _ = look(place)
        if marker is not None and marker.ledger == ledger:
            found.append(MarkedSource(marker.source, place))
    return found


def _places(path: Path | None) -> Iterator[MarkerPlace]:
    """Yield where a source's markers may be: named queues have their own."""
    if path is None:
        return
    yield place_of(path)
    for name in _names(path):
        if (path / name).is_dir() and not (path / name).is_symlink():
            yield MarkerPlace(path / name, MARKER)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - names are what is needed
    except OSError:
        return []
