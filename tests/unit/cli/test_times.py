"""Times have a date and a zone, and can be given back as they are printed."""

import io
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from drainer.cli.times import format_time, require_time
from drainer.errors import UsageError
from tests.unit.cli.test_table import Terminal

AT = datetime(2026, 11, 30, 16, 53, 34, tzinfo=UTC)


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be an hour east of Greenwich."""
    monkeypatch.setenv("TZ", "XST-1")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("berlin")
def test_local_on_a_terminal_and_utc_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever form the time comes in."""
    for out, shown in (
        (io.StringIO(), "2026-11-30 16:53:34Z"),
        (Terminal(), "2026-11-30 17:53:34+01:00"),
    ):
        monkeypatch.setattr(sys, "stdout", out)
        for at in (AT, AT.isoformat(), int(AT.timestamp() * 1e6)):
            assert format_time(at) == shown
        assert require_time(shown) == AT
        assert format_time(None) == ""


def test_what_an_operator_writes() -> None:
    """A time, in UTC without a zone, or so long ago."""
    assert require_time("2026-11-30T16:53:34") == AT
    ago = require_time("2h")
    assert ago is not None
    assert 7100 < (datetime.now(UTC) - ago).total_seconds() < 7300
    assert require_time("") is None
    with pytest.raises(UsageError) as caught:
        require_time("yesterday")
    assert "2026-11-30T19:00Z" in caught.value.hint
