"""Each report once: whenever the process dies, and however many send at a time."""

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from email import message_from_bytes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.command.runner import end
from tests.support.mta.postfix import wait_until
from tests.support.scenarios.bounces import Refusing, nobody_unknown, refusing
from tests.support.scenarios.primaries import UNKNOWN
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Delay, Drop, Script, Stall, Step, View

if TYPE_CHECKING:
    import subprocess

StartPeer = Callable[..., PeerThread]


@pytest.fixture
def bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peer: StartPeer
) -> Iterator[Refusing]:
    """Give a backup, its primary, and a relay that takes reports."""
    monkeypatch.chdir(tmp_path)
    with refusing(tmp_path, peer(), peer(Script(rcpt=nobody_unknown))) as made:
        yield made


def run_due(bench: Refusing) -> None:
    """Send what is due."""
    result = bench.run("bounces", "run", "--json", "--no-check")
    assert result.code in (0, 5), result


def kill(process: "subprocess.Popen[str]") -> None:
    """End it as a power loss would."""
    process.send_signal(signal.SIGKILL)
    process.communicate()


def unknown_or(late: Step) -> Callable[[View], Step]:
    """Answer RCPT as a primary without this user; of another it says what is given."""
    return lambda view: late if view.path.startswith("late") else nobody_unknown(view)


def test_killed_between_the_bounce_and_its_report(bench: Refusing) -> None:
    """The transaction that made it bounced had queued it: the next run sends it."""
    bench.configure(primary={"connections": 2})
    name = bench.refuse()
    bench.refuse("late@example.org")
    bench.primary.script = Script(rcpt=unknown_or(UNKNOWN.format("late@example.org")))
    assert bench.drain().code == 5
    bench.primary.script = Script(rcpt=unknown_or(Stall()))
    source = f"postfix:{bench.spool}"
    process = bench.start("drain", source, "--json", "--no-check")
    wait_until(
        lambda: bench.states()["nobody@example.org"] == "bounced",
        timeout=60,
        what="the refusal to be final",
    )
    kill(process)  # while the other one is asked for again
    assert bench.relay.commands == []
    assert bench.rows()[0]["report"]["state"] == "queued"
    bench.primary.script = Script(rcpt=unknown_or("250 2.1.5 ok"))
    for _ in range(2):
        run_due(bench)
    assert len(bench.reports) == 1
    assert [d["rule"] for d in bench.sendings(name)] == ["report-sent"]


class Killer:
    """Kills a process at a step, and answers all the same."""

    def __init__(self, reply: str) -> None:
        """Kill nothing until there is a process."""
        self.process: subprocess.Popen[str] | None = None
        self._reply = reply

    def __call__(self, _: View) -> Step:
        """Kill, then answer; afterwards only answer."""
        process, self.process = self.process, None
        if process is not None:
            kill(process)
            return Drop() if self._reply.startswith("354") else self._reply
        return self._reply


@pytest.mark.parametrize(
    ("step", "reply", "copies"),
    [
        ("mail", "250 2.1.0 ok", 1),
        ("rcpt", "250 2.1.5 ok", 1),
        ("data", "354 go", 1),
        ("dot", "250 2.0.0 queued", 2),
    ],
)
def test_killed_while_the_relay_answers(
    bench: Refusing, step: str, reply: str, copies: int
) -> None:
    """Only after the final dot it comes again, the same bytes by the same name."""
    killer = Killer(reply)
    answers: dict[str, Any] = {step: killer}
    bench.relay.script = Script(**answers)
    name = bench.refuse()
    assert bench.drain().code == 5
    source = f"postfix:{bench.spool}"
    killer.process = process = bench.start("drain", source, "--json", "--no-check")
    process.wait(60)
    assert process.returncode == -signal.SIGKILL
    for _ in range(2):
        run_due(bench)
    assert len(bench.reports) == copies
    assert len({report.content for report in bench.reports}) == 1
    (sent,) = bench.sendings(name)
    assert (sent["rule"], sent["evidence"]["attempts"]) == ("report-sent", 2)


def test_who_is_refused_after_a_kill_waits_for_a_persons_word(bench: Refusing) -> None:
    """It may have arrived; released, it has not: refused, confirmed and reported."""
    bench.primary.script = Script(rcpt=Stall())
    name = bench.refuse()
    source = f"postfix:{bench.spool}"
    process = bench.start("drain", source, "--json", "--no-check")
    bench.primary.wait(lambda: len(bench.primary.transactions) == 1, timeout=60)
    wait_until(
        lambda: bench.states() == {"nobody@example.org": "in-flight"},
        timeout=60,
        what="the attempt to be durable",
    )
    kill(process)
    bench.primary.script = Script(rcpt=nobody_unknown)
    while bench.states() != {"nobody@example.org": "held"}:
        assert bench.drain().code == 5
    assert bench.recipients()["nobody@example.org"]["rule"] == "refused-in-doubt"
    words = ("--reason", "the log of the primary has no trace of it")
    assert bench.run("release", name, *words).code == 0
    assert bench.confirm().code == 0
    assert bench.states() == {"nobody@example.org": "bounced"}
    assert len(bench.reports) == 1


def test_two_that_run_at_once_send_each_report_once(bench: Refusing) -> None:
    """They share the ledger: what one has in hand the other leaves alone."""
    bench.relay.stop()
    bench.configure(breaker={"brake_least": 20})  # nothing else is in the queue
    for n in range(8):
        bench.refuse(f"nobody{n}@example.org", sender=f"amy{n}@sender.example")
    bench.confirm()  # one of them made the bounce rules suspicious, and rests once more
    wait_until(lambda: bench.drain().code == 0, timeout=60, what="the last decision")
    bench.relay.script = Script(dot=Delay(0.05, "250 2.0.0 ok"))
    bench.relay.start()
    command = ("bounces", "run", "--json", "--no-check")
    processes = [bench.start(*command) for _ in range(2)]
    results = [end(process) for process in processes]
    assert {result.code for result in results} <= {0, 5, 6}, results
    names = Counter(
        message_from_bytes(report.content or b"")["Message-ID"]
        for report in bench.reports
    )
    assert len(names) == 8
    assert set(names.values()) == {1}
    assert {row["report"]["state"] for row in bench.rows()} == {"sent"}
    assert sum(result.json["reports"]["sent"] for result in results) == 8
