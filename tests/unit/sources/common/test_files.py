"""Errors of a spool's disk, for the operator."""

import errno
import os

import pytest

from drainer.errors import SourceError
from drainer.sources.common.files import unusable


@pytest.mark.parametrize(
    ("number", "status"),
    [(errno.EIO, 1), (errno.ENOSPC, 1), (errno.ENOENT, 2), (errno.EACCES, 2)],
)
def test_a_sick_disk_is_no_usage_error(number: int, status: int) -> None:
    """Exit 1: the same command continues when the disk works; exit 2 for a mistake."""
    found = unusable("/spool", OSError(number, os.strerror(number)))
    assert isinstance(found, SourceError)
    assert found.exit_code == status
    assert ("run the same command again" in found.hint) == (status == 1)
