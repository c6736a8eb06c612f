"""Which sources on this host a ledger still has a marker in.

Such a source may still hold mail that the ledger knows as delivered.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from drainer.sources.common.claim import look, markers_in
from drainer.sources.common.files import unescape_name, unusable
from drainer.sources.common.marker import MARKER, MarkerPlace, place_of


class MarkedSource(NamedTuple):
    """A source, and the marker that names the ledger."""

    url: str
    place: MarkerPlace


def path_of(url: str) -> Path | None:
    """Return the folder or file of a source's URL; None if it names none."""
    rest = url.partition(":")[2]
    if not rest.startswith("/") or rest.startswith("//"):
        return None
    return Path(rest if os.path.lexists(rest) else unescape_name(rest))


def marked_sources(
    ledger: str, urls: Iterable[str], state_folders: Sequence[Path]
) -> list[MarkedSource]:
    """Return the sources whose marker names a ledger, by its id.

    Looks into the sources of these URLs, one folder deep, and into the state folders.
    Raises ClaimConflict when a marker cannot be read, SourceError for a source that
    this user may not look into.
    """
    places = [
        *(place for url in urls for place in _places(url)),
        *(place for folder in state_folders for place in markers_in(folder)),
    ]
    found = []
    for place in dict.fromkeys(places):
        marker, _ = look(place)
        if marker is not None and marker.ledger == ledger:
            found.append(MarkedSource(marker.source, place))
    return found


def _places(url: str) -> Iterator[MarkerPlace]:
    """Yield where a source's markers may be: named queues have their own."""
    path = path_of(url)
    if path is None:
        return
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
        names = sorted(os.listdir(path)) if is_folder else []  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        names = []
    except OSError as error:
        raise unusable(url, error) from error
    yield place_of(path)
    for name in names:
        below = path / name
        if below.is_dir() and not below.is_symlink():
            yield MarkerPlace(below, MARKER)
