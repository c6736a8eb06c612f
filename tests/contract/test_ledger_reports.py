"""What the ledger promises about evidence and reports: each once, whoever sends it."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from drainer.bounce.collector import EvidenceCollector
from drainer.bounce.evidence.client import EvidenceWorker
from drainer.bounce.evidence.codec import facts_of
from drainer.bounce.evidence.request import EvidenceSettings
from drainer.ledger import schema
from drainer.ledger.engine import parse_url
from drainer.ledger.filters import Filters
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import AttemptEnd, AttemptStart, to_micros
from drainer.ledger.reports.evidence import QUEUED, SENT
from drainer.ledger.reports.outbox import QueuedReport, ReportDelays, ReportResult
from drainer.ledger.reports.pending_bounces import OperatorDecision, find_pending, rule
from drainer.ledger.repository import Ledger
from drainer.mail.dsn.model import DsnAction
from drainer.mail.envelope import Recipient
from drainer.mail.reply import Stage
from drainer.policy.admission.admit import Admission
from drainer.policy.admission.routes import single_route
from drainer.policy.bounce.decision import BounceAnswer, BounceDecision
from drainer.policy.bounce.facts import Reachability
from drainer.policy.bounce.limits import ReportLimits
from drainer.policy.recipient.delivery import Delivery, StoredEvidence
from drainer.policy.recipient.judge import BouncePermit
from drainer.policy.recipient.state import Event, State
from drainer.runtime.process import utcnow
from drainer.sources.maildir.source import Maildir
from tests.contract.test_ledger_breakers import TO, UNKNOWN, Bench
from tests.support.dns.zones import Zone, serving
from tests.support.scenarios.settlements import result, settled
from tests.unit.policy.bounce.test_decision import GOOD

HOST = "backup.example"
AT_ONCE = ReportDelays(settle=timedelta(0), retry=timedelta(0))
LATER = ReportDelays(settle=timedelta(0), retry=timedelta(hours=1))
_numbers = count(1_000_000)

Test = Callable[[list[Bench]], Awaitable[None]]
Run = Callable[[Test], None]


@pytest.fixture
def run(database_url: str, tmp_path: Path) -> Run:
    """Give a function that runs a test with two owners of a new ledger."""

    async def body(test: Test) -> None:
        async with AsyncExitStack() as stack:
            benches = []
            for _ in range(2):
                url = parse_url(database_url)
                ledger = Ledger(url, tmp_path / "locks", unknown=timedelta(hours=1))
                await ledger.start([TO])
                stack.push_async_callback(ledger.stop)
                benches.append(Bench(ledger))
            benches[1].mine, benches[1].route = benches[0].mine, benches[0].route
            rules = Admission(routes=single_route(benches[0].route))
            await benches[0].ledger.runs.assign([benches[0].mine], rules)
            await test(benches)

    return lambda test: asyncio.run(body(test))


def permit(
    answer: BounceAnswer = BounceAnswer.SEND,
    key: str = "",
    limits: ReportLimits | None = None,
) -> BouncePermit:
    """Return a bounce decision; about a failure of its own, if no key is given."""
    decision = BounceDecision(answer=answer, rule="G15", reason="so", evidence={})
    return BouncePermit(
        decision=decision,
        key=key or f"{next(_numbers):064}",
        status="5.1.1",
        case=None if limits is None else replace(GOOD, limits=limits),
    )


async def bounced(
    bench: Bench, *paths: str, permitted: BouncePermit | None = None
) -> None:
    """Let a message be refused for good, with a report that is queued if it may be."""
    delivery = await bench.recorded(*paths)
    await closed(bench, delivery, UNKNOWN, State.BOUNCED, permitted or permit())


async def closed(
    bench: Bench,
    delivery: Delivery,
    reply: str,
    state: State,
    permitted: BouncePermit | None = None,
) -> None:
    """End an attempt of a job so."""
    number, now = next(_numbers), datetime.now(UTC)
    await bench.ledger.submit(
        AttemptStart(id=number, delivery=delivery, connection=TO, started=now)
    )
    ends = [result(reply, Stage.DOT, claimed=each) for each in delivery.claimed]
    settlements = tuple(
        replace(each, state=state, permit=permitted) for each in settled(ends, now=now)
    )
    await bench.ledger.submit(
        AttemptEnd(
            id=number,
            delivery=delivery,
            ended=now,
            stages=(),
            settlements=settlements,
            free=True,
            relayed=True,
        )
    )


async def take(bench: Bench, waits: ReportDelays = AT_ONCE) -> QueuedReport | None:
    """Begin to send the next report."""
    return await bench.ledger.reports.take(waits, HOST)


def test_two_who_send_at_once_never_take_the_same_report(run: Run) -> None:
    """Each is taken by one of them; what it tells of, and its name, stand then."""

    async def test(benches: list[Bench]) -> None:
        for n in range(6):
            await bounced(benches[0], f"a{n}@example.org", f"b{n}@example.org")
        takers = [take(bench, LATER) for bench in benches * 5]
        taken = [each for each in await asyncio.gather(*takers) if each]
        assert len({each.seq for each in taken}) == 6
        assert len(taken) == 6
        assert len({each.report_id for each in taken}) == 6
        assert {len(each.recipients) for each in taken} == {2}
        assert {each.action for each in taken} == {DsnAction.FAILED}

    run(test)


def limited(**limits: Any) -> BouncePermit:
    """Return a permit of the bounce rules, as of what a drain knew when it asked."""
    return permit(limits=ReportLimits(**limits))


def counts(bench: Bench) -> dict[str, int]:
    """Return how many recipients are in each state."""
    return Counter(bench.states().values())


def test_of_two_who_decide_at_once_about_a_failure_one_tells(run: Run) -> None:
    """The second one finds the key on disk; both senders' mail is kept or told of."""

    async def test(benches: list[Bench]) -> None:
        same = permit(key="k" * 64, limits=ReportLimits())
        await asyncio.gather(
            *(
                bounced(bench, f"{n}@example.org", permitted=same)
                for n, bench in enumerate(benches)
            )
        )
        assert counts(benches[0]) == {"bounced": 1, "quarantined": 1}
        assert (benches[0].decided("G15"), benches[0].decided("G14")) == (1, 1)
        assert await take(benches[0], LATER) is not None
        assert await take(benches[1], LATER) is None

    run(test)


def test_those_who_decide_at_once_keep_to_a_limit_together(run: Run) -> None:
    """Each asked the bounce rules before the other had let anything go."""

    async def test(benches: list[Bench]) -> None:
        few = limited(per_hour=3, sender_per_hour=99)
        await asyncio.gather(
            *(
                bounced(bench, f"{n}@example.org", permitted=replace(few, key=f"{n}"))
                for n, bench in enumerate(benches * 4)
            )
        )
        assert counts(benches[0]) == {"bounced": 3, "quarantined": 5}
        assert benches[0].decided("G14") == 5

    run(test)


def test_each_run_has_a_limit_of_its_own(run: Run) -> None:
    """Two drains at once let go twice as many; a second one of theirs does not pass."""

    async def test(benches: list[Bench]) -> None:
        for n, bench in enumerate(benches * 2):
            one = limited(per_run=1, sender_per_hour=99)
            await bounced(bench, f"{n}@example.org", permitted=one)
        assert counts(benches[0]) == {"bounced": 2, "quarantined": 2}

    run(test)


def test_the_recipients_of_one_message_count_as_one_report(run: Run) -> None:
    """A limit tears no report apart; what comes after it was sent is another one."""

    async def test(benches: list[Bench]) -> None:
        bench = benches[0]
        delivery = await bench.recorded(*(f"{n}@example.org" for n in range(4)))
        *some, last = delivery.claimed
        first = replace(delivery, claimed=tuple(some))
        now = datetime.now(UTC)
        await settle_each(bench, first, now)
        assert counts(bench)["bounced"] == 3
        told = await take(bench)
        assert told is not None
        assert len(told.recipients) == 3
        await bench.ledger.reports.end(
            told, ReportResult(SENT, "250 ok", "mx", "taken")
        )
        await settle_each(bench, replace(delivery, claimed=(last,)), now)
        assert bench.states()["3@example.org"] == "quarantined"

    run(test)


async def settle_each(bench: Bench, delivery: Delivery, now: datetime) -> None:
    """End an attempt: each recipient is refused, and each may be reported."""
    number = next(_numbers)
    await bench.ledger.submit(
        AttemptStart(id=number, delivery=delivery, connection=TO, started=now)
    )
    ends = [result(UNKNOWN, Stage.RCPT, claimed=each) for each in delivery.claimed]
    settlements = tuple(
        replace(each, state=State.BOUNCED, permit=limited(sender_per_hour=1))
        for each in settled(ends, now=now)
    )
    await bench.ledger.submit(
        AttemptEnd(
            id=number, delivery=delivery, ended=now, stages=(), settlements=settlements
        )
    )


def test_an_approval_keeps_to_what_a_drain_told_in_between(run: Run) -> None:
    """A person's list of pending bounces is older than what a drain has sent since."""

    async def test(benches: list[Bench]) -> None:
        bench = benches[0]
        await bench.refused("a@example.org")
        await bench.refused("b@example.org")
        url = bench.ledger.url
        with LedgerReader(url) as report:
            rests = list(find_pending(report, Filters()))
        mine = [r for r in rests if r.row["source"] == bench.mine]
        rulings = [
            OperatorDecision(
                pending=r, event=Event.APPROVED, permit=limited(sender_per_hour=2)
            )
            for r in mine
        ]
        await bounced(bench, "c@example.org", permitted=limited(sender_per_hour=2))
        done = await asyncio.to_thread(rule, url, "approve", rulings, "known")
        assert [each.event for each in done] == [
            Event.APPROVED,
            Event.APPROVED_REFUSED,
        ]
        assert counts(bench) == {"bounced": 2, "quarantined": 1}
        again = await asyncio.to_thread(rule, url, "approve", rulings, "known")
        assert again == []  # they do not rest any more

    run(test)


def test_a_report_keeps_its_name_and_counts_its_attempts(run: Run) -> None:
    """Not taken now: again, under the same Message-ID, until somebody takes it."""

    async def test(benches: list[Bench]) -> None:
        one, other = benches
        await bounced(one, "a@example.org")
        first = await take(one)
        assert first is not None
        assert await take(other) is None  # it is in hand
        await one.ledger.reports.end(
            first, ReportResult(QUEUED, "450 later", "mx", "not now")
        )
        second = await take(other)
        assert second is not None
        assert (second.report_id, second.attempts) == (first.report_id, 2)
        await other.ledger.reports.end(
            second, ReportResult(SENT, "250 ok", "mx", "taken")
        )
        assert await take(one) is None
        assert await other.ledger.reports.needless([second.message.id]) == [
            second.message.id
        ]
        assert (one.decided("report-deferred"), one.decided("report-sent")) == (1, 1)

    run(test)


def test_nothing_ripens_before_evidence_was_looked_for(run: Run) -> None:
    """It is lacking until it was kept; DNS that was silent is asked again later."""

    async def test(benches: list[Bench]) -> None:
        bench, ledger = benches[0], benches[0].ledger
        await bench.refused("a@example.org")
        [row] = await ledger.reports.lacking_evidence([bench.mine], 10)
        assert await ledger.breakers.retry_due_bounces(bench.mail, looked=True) == 0
        found = await ledger.breakers.find_due_bounces(bench.mail, looked=True)
        assert (found.due, found.pending) == (0, 1)
        evidence = {"facts": "{}", "marks": "{}", "later": 1}
        await ledger.reports.keep_evidence(row["seq"], evidence)
        assert await ledger.reports.lacking_evidence([bench.mine], 10) == []
        assert await ledger.breakers.retry_due_bounces(bench.mail, looked=True) == 1
        assert await bench.claimed() == [("a@example.org",)]

    run(test)


def test_slow_senders_come_after_all_others_and_later_each_time(run: Run) -> None:
    """Those that nobody asked about come first, whatever came first into the ledger."""

    async def test(benches: list[Bench]) -> None:
        bench, ledger = benches[0], benches[0].ledger
        await bench.refused("slow@example.org")
        [slow] = await ledger.reports.lacking_evidence([bench.mine], 10)
        found = {"facts": "{}", "marks": "{}", "later": 1}
        await ledger.reports.keep_evidence(slow["seq"], found)
        await bench.refused("new@example.org")
        hour = timedelta(hours=1) // timedelta(microseconds=1)
        expected = {(1, 0): False, (2, 1): True, (5, 2): False, (5, 3): True}
        for (asked, looked), is_due in expected.items():
            now = to_micros(utcnow())
            with bench.reading() as connection:
                connection.execute(
                    sa.update(schema.evidence)
                    .where(schema.evidence.c.message == slow["seq"])
                    .values(asked=now - asked * hour, looked=now - looked * hour)
                )
                connection.commit()
            rows = await ledger.reports.lacking_evidence([bench.mine], 10)
            assert (slow["seq"] in [row["seq"] for row in rows]) is is_due
            assert rows[0]["seq"] != slow["seq"]
            left_out = [rows[0]["seq"]]
            rest = await ledger.reports.lacking_evidence([bench.mine], 10, left_out)
            assert len(rest) == len(rows) - 1

    run(test)


def test_who_sent_what_cannot_be_read_now_is_looked_at_again(
    run: Run, tmp_path: Path
) -> None:
    """Else a proven sender would not be told, for a file that was away for a moment."""

    async def test(benches: list[Bench]) -> None:
        bench = benches[0]
        await bench.refused("a@example.org")
        (tmp_path / "empty" / "new").mkdir(parents=True)
        sources = {bench.mine: Maildir(tmp_path / "empty")}
        with serving(Zone()) as servers:
            async with EvidenceWorker(EvidenceSettings(servers=servers)) as checks:
                gathering = EvidenceCollector(bench.ledger, sources, checks)
                await gathering.quick()
                await gathering.put_off()
        with bench.reading() as connection:
            [row] = connection.execute(bench.of_mine(schema.evidence))
        found = StoredEvidence(asked=row.asked, facts=row.facts, marks=row.marks)
        assert (facts_of(found).reach, row.later) == (Reachability.LATER, 1)

    run(test)


async def looked(bench: Bench) -> int:
    """Keep evidence about all senders of whom it is lacking; return how many."""
    rows = await bench.ledger.reports.lacking_evidence([bench.mine], 10)
    for row in rows:
        found = {"facts": "{}", "marks": "{}", "later": 0}
        await bench.ledger.reports.keep_evidence(row["seq"], found)
    return len(rows)


def test_the_bounce_rules_are_asked_about_a_delivery_before_it_is_reported(
    run: Run,
) -> None:
    """Once, where the sender asked for it; the answer stands, whatever it is."""

    async def test(benches: list[Bench]) -> None:
        bench, ledger = benches[0], benches[0].ledger
        for answer in (BounceAnswer.SEND, BounceAnswer.NO, BounceAnswer.LATER):
            delivery = await bench.recorded(f"{answer}@example.org")
            wants = replace(
                delivery.claimed[0],
                recipient=Recipient(
                    forward_path=f"{answer}@example.org", notify=("SUCCESS",)
                ),
            )
            delivery = replace(delivery, claimed=(wants,))
            await closed(bench, delivery, "250 2.0.0 ok", State.DELIVERED)
        assert await ledger.reports.asked([bench.mine]) == []  # there is no evidence
        assert await looked(bench) == 3
        assert await take(bench) is None
        asked = await ledger.reports.asked([bench.mine])
        answers = [
            BounceAnswer(each.row["forward_path"].split("@")[0]) for each in asked
        ]
        permits = [permit(answer) for answer in answers]
        await ledger.reports.answer(list(zip(asked, permits, strict=True)))
        assert await ledger.reports.asked([bench.mine]) == []
        told = await take(bench, LATER)
        assert told is not None
        assert told.action is DsnAction.RELAYED
        assert told.recipients[0][1].forward_path == "send@example.org"
        assert await take(bench) is None

    run(test)
