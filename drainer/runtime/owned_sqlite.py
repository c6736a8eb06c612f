"""SQLite with the rights of the owner of its folder.

SQLite opens its journals by name, at any time, and removes them by name. As root in a
folder of another user every call therefore has that user's rights. It takes absolute
paths alone, so it may need the right to pass through folders that the user cannot
enter.
"""

import os
import sqlite3
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from drainer.runtime.file_rights import as_owner, is_root, refusal
from drainer.runtime.folders import is_trusted, locate
from drainer.runtime.private_files import check_private

_SUFFIXES = ("", "-wal", "-shm", "-journal")


def sqlite_arguments(path: Path) -> dict[str, Any]:
    """Return what ``sqlite3.connect`` needs besides the path of a file.

    Raises OSError for a file that root must not open: a link, or one in a folder in
    which not only its owner could put another in its place.
    """
    owner = _owner(path)
    if owner is None:
        return {}
    for suffix in _SUFFIXES:
        check_private(Path(f"{path}{suffix}"))
    rights = _Rights(owner, search=_is_hidden(path.parent, owner))
    return {"factory": partial(_Connection, rights=rights)}


class _Rights(NamedTuple):
    """Whose rights a connection has, and whether it may pass through any folder."""

    owner: os.stat_result
    search: bool

    def use(self) -> AbstractContextManager[None]:
        """Have these rights for one call."""
        return as_owner(self.owner, search=self.search)


def _is_hidden(folder: Path, owner: os.stat_result) -> bool:
    """Return whether a folder's owner cannot reach it by its path."""
    try:
        with as_owner(owner):
            os.stat(f"{folder}/.")  # noqa: PTH116 - it must enter it
    except PermissionError:
        return True
    return False


def _owner(path: Path) -> os.stat_result | None:
    """Return whose rights are to be used; None for those of this process."""
    if not is_root():
        return None
    located = locate(path)
    try:
        folder = os.fstat(located.folder)
        if folder.st_uid or is_trusted(folder):
            return folder if folder.st_uid else located.foreign
        with suppress(FileNotFoundError):
            file = os.stat(located.name, dir_fd=located.folder, follow_symlinks=False)
            if file.st_uid:
                return file
        raise refusal(f"{path.parent} belongs to root, and others can write it")
    finally:
        os.close(located.folder)


class _Cursor(sqlite3.Cursor):
    """A cursor of such a connection."""

    connection: "_Connection"

    def execute(self, sql: str, parameters: Any = (), /) -> "_Cursor":  # noqa: ANN401
        """Run a statement."""
        with self.connection.rights.use():
            super().execute(sql, parameters)
        return self

    def executemany(self, sql: str, parameters: Iterable[Any], /) -> "_Cursor":
        """Run a statement for each of the parameters."""
        with self.connection.rights.use():
            super().executemany(sql, parameters)
        return self

    def executescript(self, script: str, /) -> "_Cursor":
        """Run several statements."""
        with self.connection.rights.use():
            super().executescript(script)
        return self


class _Connection(sqlite3.Connection):
    """A connection that acts as the owner of its folder."""

    def __init__(
        self,
        *arguments: Any,  # noqa: ANN401
        rights: _Rights,
        **keywords: Any,  # noqa: ANN401
    ) -> None:
        self.rights = rights
        with rights.use():
            super().__init__(*arguments, **keywords)

    def cursor(self, *_: Any) -> _Cursor:  # type: ignore[override] # noqa: ANN401
        """Return a cursor that does the same."""
        return super().cursor(_Cursor)

    def commit(self) -> None:
        """Commit; the journal may be removed."""
        with self.rights.use():
            super().commit()

    def rollback(self) -> None:
        """Roll back; the journal may be removed."""
        with self.rights.use():
            super().rollback()

    def close(self) -> None:
        """Close; the last connection removes the journals."""
        with self.rights.use():
            super().close()
