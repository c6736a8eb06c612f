"""What the progress line says."""

from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from drainer.cli.progress import _words
from drainer.delivery.settings import Progress, RouteProgress
from drainer.policy.classify.verdict import Verdict
from drainer.runtime.process import utcnow

if TYPE_CHECKING:
    from drainer.delivery.drain import Drain


def words(**facts: Any) -> str:
    """Return the line of a drain that began a thousand seconds ago."""
    began = utcnow() - timedelta(seconds=1000)
    route = RouteProgress(name="mx1:25", started=began, limit="50/s")
    progress = Progress(started=began, routes=[route])
    for seq in range(facts.pop("sent", 0)):
        progress.sent.add(seq)
    for name, value in facts.items():
        setattr(route if hasattr(route, name) else progress, name, value)
    return _words(cast("Drain", SimpleNamespace(progress=progress)))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (
            {"sent": 10_000, "total": 30_000, "scanning": False},
            "10000/30000 sent, 10.0/s of 50/s, 33 m ",
        ),
        ({"total": 300, "scanning": True}, "0/300+ sent"),
        ({"held": "5/s of 50/s: it is slow"}, "limited to 5/s of 50/s: it is slow"),
        ({"paused": "paused by root"}, "paused by root"),
        ({"waiting": "next retry in 60 s", "total": 2}, "next retry in 60 s"),
        ({"share": 0.5}, "50% of the rate, other drains have the rest"),
        ({"load_unknown": "timeout"}, "the primary's load is unknown: timeout"),
        ({"verdicts": {Verdict.RETRY: 3, Verdict.RETRY_LONG: 1}}, "4 deferred"),
        ({"verdicts": {Verdict.BOUNCE: 2}}, "2 refused"),
        ({"verdicts": {Verdict.HOLD: 1, Verdict.UNKNOWN: 5}}, "1 held, 5 in doubt"),
    ],
)
def test_the_line_tells_it(facts: dict[str, Any], expected: str) -> None:
    """Done and total, rate and limit, trouble, and what it waits for."""
    if "verdicts" in facts:
        progress = Progress(started=utcnow())
        progress.verdicts.update(facts["verdicts"])
        facts = {"verdicts": progress.verdicts}
    assert expected in words(**facts)


def test_nothing_to_go_when_it_waits_or_is_done() -> None:
    """An estimate would be a lie."""
    assert "to go" not in words(sent=3, total=3)
    assert "to go" not in words(sent=1, total=3, waiting="the breaker")


def test_a_message_in_several_transactions_counts_once() -> None:
    """Done never exceeds the total."""
    progress = Progress(started=utcnow())
    for seq in (1, 2, 1, 90_000, 1, 90_000):
        progress.sent.add(seq)
    assert progress.sent_messages == 3
