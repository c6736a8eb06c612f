"""What the progress lines say."""

import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from drainer.cli import progress as module
from drainer.cli.progress import WINDOW, ProgressLines, _view
from drainer.delivery.settings import Progress, RouteProgress
from drainer.policy.recipient.state import State

START = datetime(2026, 11, 30, tzinfo=UTC)


def drain(**facts: Any) -> Progress:
    """Return the progress of a drain; facts of its route go there."""
    route = RouteProgress(name="mx1:25", started=START, limit="50/s", per_second=50.0)
    progress = Progress(started=START, routes=[route], scanning=False)
    for seq in range(facts.pop("sent", 0)):
        progress.sent.add(seq)
    for name, value in facts.items():
        if name == "states":
            progress.states.update(value)
        else:
            setattr(route if hasattr(route, name) else progress, name, value)
    return progress


def words(seconds: float = 1000, **facts: Any) -> str:
    """Return all lines of a drain that began so long ago."""
    head, below = ProgressLines(drain(**facts)).at(START + timedelta(seconds=seconds))
    return "; ".join([head, *below])


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (
            {"sent": 10_000, "total": 30_000},
            "33% 10000/30000 sent, 16 m 40 s, 10.0/s of 50/s, 33 m 20 s to go",
        ),
        ({"total": 300, "scanning": True}, "0% 0/300+ sent"),
        ({"held": "5/s of 50/s: it is slow"}, "limited to 5/s of 50/s: it is slow"),
        ({"paused": "paused by root"}, "paused by root"),
        ({"waiting": "next retry in 60 s", "total": 2}, "next retry in 60 s"),
        ({"share": 0.5}, "50% of the rate, other drains have the rest"),
        ({"load_unknown": "timeout"}, "the primary's load is unknown: timeout"),
        ({"states": {State.DEFERRED: 4}}, "4 deferred"),
        ({"states": {State.BOUNCE_PENDING: 1, State.BOUNCED: 1}}, "2 refused"),
        ({"states": {State.HELD: 1, State.UNKNOWN: 5}}, "1 held, 5 in doubt"),
    ],
)
def test_the_lines_say_it(facts: dict[str, Any], expected: str) -> None:
    """Percent, done and total, elapsed, rate and limit, counts, and what it awaits."""
    assert expected in words(**facts)


def test_nothing_to_go_when_it_waits_or_is_done() -> None:
    """An estimate would be a lie."""
    assert "to go" not in words(sent=3, total=3)
    assert "to go" not in words(sent=1, total=3, waiting="the breaker")
    assert "to go" not in words(sent=1, total=3, paused="paused by root")


def test_what_is_left_knows_the_ramp() -> None:
    """While the limit decides, the rate of the start says nothing about the end."""
    ramp = {"ramp": timedelta(minutes=2), "level": 1 / 16, "total": 10_000}
    slow = words(seconds=10, sent=32, **ramp)
    assert "3.2/s of 50/s" in slow
    assert "3 m 48 s to go" in slow  # at the rate of the start it would be 52 m
    ill = words(seconds=10, sent=10, **ramp)  # slower than it may be: as it is
    assert "2 h 46 m to go" in ill


def test_the_rate_is_that_of_the_last_half_minute() -> None:
    """What was sent an hour ago says nothing about now."""
    progress = drain(sent=100, total=200)
    lines = ProgressLines(progress)
    head = ""
    for second in range(100, 200):
        head, _ = lines.at(START + timedelta(seconds=second))
    assert "0.0/s" in head
    for seq in range(100, 160):
        progress.sent.add(seq)
    assert f"{60 / WINDOW:.1f}/s" in lines.at(START + timedelta(seconds=200))[0]


def test_counts_go_down() -> None:
    """A deferred recipient that is delivered, or was before this run, is not shown."""
    progress = drain(states={State.DEFERRED: 2})
    progress.states[State.DEFERRED] -= 2
    progress.states[State.PENDING] -= 7
    assert ProgressLines(progress).at(START)[1] == []


def test_two_lines_fit_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bar, whatever it says; what is too long ends with an ellipsis."""
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=True, color_system=None)
    monkeypatch.setattr(module, "stderr", console)
    facts = {
        "sent": 123_456,
        "total": 999_999,
        "states": {State.DEFERRED: 1000, State.BOUNCE_PENDING: 200, State.HELD: 30},
        "held": "3.12/s of 50/s: going up, the primary is healthy",
        "waiting": "open: 421 4.7.0 try again later, we are busy with ourselves",
    }
    progress = drain(**facts)
    console.print(_view(progress, ProgressLines(progress)))
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert all(len(line) <= 80 for line in lines)
    assert "12% 123456/999999 sent" in lines[0]
    assert lines[1].startswith("1000 deferred, 200 refused, 30 held")
    assert lines[1].endswith("…")


def test_each_of_several_routes_has_its_line() -> None:
    """With its count, its rate, and its problem."""
    progress = drain(sent=5, total=10)
    other = RouteProgress(name="mx2:25", started=START, paused="paused by root")
    progress.routes.append(other)
    _, below = ProgressLines(progress).at(START + timedelta(seconds=10))
    assert below == ["mx1:25: 0 at 0.0/s", "mx2:25: 0 at 0.0/s (paused by root)"]


def test_a_message_in_several_transactions_counts_once() -> None:
    """Done never exceeds the total."""
    progress = Progress(started=START)
    for seq in (1, 2, 1, 90_000, 1, 90_000):
        progress.sent.add(seq)
    assert progress.sent_messages == 3
