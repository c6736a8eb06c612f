"""What the ledger promises about breakers: kept, opened, closed, waited for."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa
from msgspec.structs import replace

from drainer.ledger import engine, schema
from drainer.ledger.breakers import breaker_of
from drainer.ledger.claims import ClaimRequest
from drainer.ledger.codec import listing_of
from drainer.ledger.engine import parse_url
from drainer.ledger.overrides import OverrideReader, give
from drainer.ledger.records import (
    AttemptEnd,
    AttemptStart,
    Decision,
    DecisionKind,
    to_micros,
)
from drainer.ledger.repository import Ledger
from drainer.ledger.route_mail import RouteMail
from drainer.ledger.watch_log import WatchLog
from drainer.mail.content import HeldContent, survey
from drainer.mail.envelope import Envelope, Recipient
from drainer.mail.message import Message, SpooledMessage
from drainer.mail.reply import Lost, Stage
from drainer.policy.admission.admit import Admission, admit
from drainer.policy.admission.identity import ScanContext
from drainer.policy.admission.routes import single_route
from drainer.policy.breaker.brake import Brake
from drainer.policy.breaker.breaker import BreakerState, Cause, CircuitBreaker, Phase
from drainer.policy.breaker.history import ROUTE
from drainer.policy.breaker.registry import BreakerRegistry
from drainer.policy.classify.classifier import Answer
from drainer.policy.pacing.overrides import ActiveOverrides, Override, OverrideKind
from drainer.policy.recipient.delivery import Delivery
from drainer.policy.recipient.state import State
from tests.support.databases.servers import Server
from tests.support.scenarios.settlements import PAUSES, result, scopes, seen, settled

NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
LATER = NOW + HOUR
BEFORE = NOW - 2 * HOUR
SCAN = ScanContext(started=to_micros(NOW), acknowledges=True)
TO = "127.0.0.1:25"
CONTENT = b"Subject: x\r\n\r\nbody\r\n"
UNKNOWN = "550 5.1.1 User unknown"
RELAY = "554 5.7.1 Relay access denied"
NO_BRAKE = Brake(least=1000, share=1)
OPEN = CircuitBreaker(
    pauses=PAUSES,
    state=BreakerState.OPEN,
    until=NOW,
    failures=1,
    cause=Cause(
        trigger="stop", classification=seen(RELAY, "u@x").classification, reply=RELAY
    ),
)


_numbers = count(1)


class Bench:
    """A ledger, and a route and two sources of a test's own in it."""

    def __init__(self, ledger: Ledger) -> None:
        """Record nothing yet."""
        number = next(_numbers)
        self.ledger = ledger
        self.route = f"127.0.0.1:{number}"
        self.mine, self.other = f"maildir:/mine{number}", f"maildir:/other{number}"

    @property
    def mail(self) -> RouteMail:
        """The mail of the first source."""
        return RouteMail([self.mine], self.route)

    async def recorded(self, *paths: str, source: str = "") -> Delivery:
        """Record a message to these recipients and claim it."""
        number = next(_numbers)
        message = Message(
            identity=f"{number:032x}",
            source=source or self.mine,
            native_id=f"m{number}",
            queue="new",
            locator=f"new/m{number}",
            arrived=BEFORE,
            envelope=Envelope(
                reverse_path="amy@example.com",
                recipients=tuple(Recipient(forward_path=path) for path in paths),
            ),
        )
        spooled = SpooledMessage(message=message, content=HeldContent(CONTENT))
        rules = Admission(routes=single_route(self.route))
        scanned = admit(spooled, survey([CONTENT], digest=True), rules)
        found = await self.ledger.messages.record(
            [listing_of(scanned, CONTENT)], SCAN, {self.route}
        )
        return found.fresh[0]

    async def tried(
        self,
        delivery: Delivery,
        answer: Answer | str,
        stage: Stage = Stage.RCPT,
        *,
        at: datetime = BEFORE,
        breakers: BreakerRegistry | None = None,
    ) -> None:
        """Make an attempt that ends so for all of its recipients."""
        number = next(_numbers)
        opened = AttemptStart(id=number, delivery=delivery, connection=TO, started=at)
        await self.ledger.submit(opened)
        endings = [result(answer, stage, claimed=each) for each in delivery.claimed]
        found = settled(endings, now=at, breakers=breakers or scopes())
        await self.ledger.submit(
            AttemptEnd(
                id=number,
                delivery=delivery,
                ended=at,
                stages=(),
                settlements=found,
                free=True,
            )
        )

    async def refused(self, *paths: str, source: str = "", **more: Any) -> None:
        """Let a message rest, because it was refused for good."""
        delivery = await self.recorded(*paths, source=source)
        await self.tried(delivery, UNKNOWN, **more)

    async def waiting(self, path: str, scope: str, *, source: str = "") -> None:
        """Let a message wait for a breaker that probes."""
        breakers = scopes()
        breaker = replace(
            OPEN, scope=scope, state=BreakerState.PAUSED, until=NOW + HOUR
        )
        breakers.restore(breaker)
        delivery = await self.recorded(path, source=source)
        await self.tried(delivery, RELAY, breakers=breakers)

    async def claimed(self) -> list[tuple[str, ...]]:
        """Claim what is due; return the recipients of each job."""
        deliveries = await self.ledger.messages.claim(
            ClaimRequest(
                RouteMail([self.mine, self.other], self.route), datetime.now(UTC)
            )
        )
        return [
            tuple(each.recipient.forward_path for each in delivery.claimed)
            for delivery in deliveries
        ]

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Read the ledger as it is on disk."""
        reader = engine.connect(self.ledger.url, create=False)
        try:
            with reader.connect() as connection:
                yield connection
        finally:
            reader.dispose()

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return every recipient's row by its address."""
        with self.reading() as connection:
            found = connection.execute(self.of_mine(schema.recipients)).mappings()
            return {row["forward_path"]: dict(row) for row in found}

    def of_mine(self, table: sa.Table) -> sa.Select[Any]:
        """Return a query for the rows of a table about messages of this test."""
        messages = schema.messages.c
        mine = messages.source.in_([self.mine, self.other])
        joined = table.join(schema.messages, table.c.message == messages.seq)
        return sa.select(table).select_from(joined).where(mine)

    def states(self) -> dict[str, str]:
        """Return the state of every recipient."""
        return {path: row["state"] for path, row in self.rows().items()}

    def decided(self, rule: str) -> int:
        """Return how many decisions name a rule."""
        with self.reading() as connection:
            query = self.of_mine(schema.decisions)
            rules = connection.execute(query.where(schema.decisions.c.rule == rule))
            return len(rules.all())


Test = Callable[[Bench], Awaitable[None]]


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mariadb"])
def start(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    database_servers: Callable[[str], Server],
) -> Iterator[tuple[asyncio.Runner, Ledger]]:
    """Start one ledger on a database of each kind, for all tests of the module."""
    folder = tmp_path_factory.mktemp("ledger")
    if request.param == "sqlite":
        url = f"sqlite:///{folder}/data.db"
    else:
        url = database_servers(request.param).fresh()
    with asyncio.Runner() as runner:
        ledger = Ledger(parse_url(url), folder / "locks", unknown=HOUR)
        runner.run(ledger.start([TO]))
        yield runner, ledger
        runner.run(ledger.stop())


@pytest.fixture
def run(start: tuple[asyncio.Runner, Ledger]) -> Callable[[Test], None]:
    """Give a function that runs a test with sources of its own."""
    runner, ledger = start

    async def body(test: Test) -> None:
        bench = Bench(ledger)
        await ledger.runs.assign(
            [bench.mine, bench.other], Admission(routes=single_route(bench.route))
        )
        await test(bench)

    return lambda test: runner.run(body(test))


Run = Callable[[Test], None]
PENDING, DEFERRED = State.BOUNCE_PENDING.value, State.DEFERRED.value


# ---- breakers are kept


def test_a_breaker_comes_back_as_it_was_kept(run: Run) -> None:
    """With all that it knew, whatever bytes the primary sent; the latest of each."""
    spam = seen("554 5.7.23 SPF\x00 \u00fc fail %s", "u@x")
    breakers = [
        OPEN,
        replace(OPEN, scope="example.org", until=None, cause=None),
        replace(
            OPEN,
            scope="example.net",
            state=BreakerState.HALF_OPEN,
            phase=Phase.CANARY,
            reopening=True,
            cause=replace(spam.cause("run"), content=True),
        ),
    ]

    async def test(bench: Bench) -> None:
        for breaker in breakers:
            await bench.ledger.breakers.keep(bench.route, replace(breaker, failures=9))
            await bench.ledger.breakers.keep(bench.route, breaker)
        await bench.ledger.breakers.keep("other:25", replace(OPEN, failures=5))
        memory = await bench.ledger.breakers.recall(bench.route)
        back = {row["scope"]: breaker_of(row, PAUSES) for row in memory.breakers}
        assert back == {breaker.scope: breaker for breaker in breakers}

    run(test)


def test_a_breaker_that_is_as_at_the_start_is_forgotten(run: Run) -> None:
    """Strangers' domains do not fill the ledger."""

    async def test(bench: Bench) -> None:
        breaker = replace(OPEN, scope="example.org")
        await bench.ledger.breakers.keep(bench.route, breaker)
        await bench.ledger.breakers.keep(
            bench.route, CircuitBreaker(pauses=PAUSES, scope="example.org")
        )
        assert (await bench.ledger.breakers.recall(bench.route)).breakers == []

    run(test)


def test_it_recalls_who_was_delivered_to_and_when_it_all_began(run: Run) -> None:
    """Of the sources that are bound to this primary, the latest last."""

    async def test(bench: Bench) -> None:
        await bench.tried(await bench.recorded("bob@x.org"), "250 ok", Stage.DOT)
        await bench.refused("amy@x.org")
        delivery = await bench.recorded("first@x.org")
        await bench.tried(delivery, "250 ok", Stage.DOT, at=BEFORE - HOUR)
        old = NOW - timedelta(days=31)
        delivery = await bench.recorded("old@x.org")
        await bench.tried(delivery, "250 ok", Stage.DOT, at=old)
        memory = await bench.ledger.breakers.recall(bench.route)
        assert memory.learnt == ["first@x.org", "bob@x.org"]
        assert [each[:2] for each in memory.delivered] == [("x.org", "example.com")]
        assert (await bench.ledger.breakers.recall(TO)).first_run is not None
        elsewhere = await bench.ledger.breakers.recall("other:25")
        assert (elsewhere.learnt, elsewhere.first_run) == ([], None)

    run(test)


# ---- a breaker opens


def test_a_breaker_that_opens_takes_back_what_is_behind_it(run: Run) -> None:
    """Of that domain, however it is written; and no other's, nor another source's."""

    async def test(bench: Bench) -> None:
        for path in ("a@example.org", "b@Example.ORG", "c@example.org."):
            await bench.refused(path)
        for path in ("d@example.net", "e@sub.example.org", "f@example.org.net"):
            await bench.refused(path)
        await bench.refused("g@anexample.org", "h@exampleXorg", "i@example_org")
        await bench.refused("j@example.org", source=bench.other)
        breaker = replace(OPEN, scope="example.org")
        assert await bench.ledger.breakers.opened(bench.mail, breaker) == 3
        states = bench.states()
        taken = {path for path, state in states.items() if state == DEFERRED}
        assert taken == {"a@example.org", "b@Example.ORG", "c@example.org."}
        row = bench.rows()["b@Example.ORG"]
        assert (row["waits"], row["refusal"], row["refused"]) == (
            "example.org",
            "",
            None,
        )
        assert bench.decided("breaker-open") == 3
        assert await bench.claimed() == []  # it waits

    run(test)


def test_a_breaker_takes_back_both_spellings_of_its_domain(run: Run) -> None:
    """RFC 5890 2.3.2.1: the U-label and the A-label are one domain."""

    async def test(bench: Bench) -> None:
        those = {
            "a@B\u00dccher.example",
            "b@b\u00fccher.Example.",
            "c@XN--bcher-kva.example",
            "d@b\u00fccher\uff0eexample",
        }
        await bench.refused(*sorted(those), "e@b\u00e4cher.example", "f@bcher.example")
        breaker = replace(OPEN, scope="xn--bcher-kva.example")
        assert await bench.ledger.breakers.opened(bench.mail, breaker) == len(those)
        states = bench.states()
        assert {path for path, state in states.items() if state == DEFERRED} == those

    run(test)


def test_the_routes_breaker_takes_back_all_of_its_sources(run: Run) -> None:
    """Twice does no more than once."""

    async def test(bench: Bench) -> None:
        await bench.refused("a@example.org", "b@example.net")
        await bench.refused("c@example.com", source=bench.other)
        assert await bench.ledger.breakers.opened(bench.mail, OPEN) == 2
        assert await bench.ledger.breakers.opened(bench.mail, OPEN) == 0
        assert bench.states()["c@example.com"] == PENDING
        assert bench.rows()["b@example.net"]["waits"] == "*"

    run(test)


def test_a_breaker_that_opens_takes_back_what_was_held_for_the_same_reason(
    run: Run,
) -> None:
    """What is held for another reason, or for another domain, stays."""

    async def test(bench: Bench) -> None:
        same, other = "550 5.7.23 SPF fail", "550 5.4.6 Loop"
        for path, reply in (("a", same), ("b", other), ("c", same)):
            await bench.tried(await bench.recorded(f"{path}@example.org"), reply)
        await bench.tried(await bench.recorded("d@example.net"), same)
        cause = Cause(
            trigger="run", classification=seen(same, "u@x").classification, reply=same
        )
        breaker = replace(OPEN, scope="example.org", cause=cause)
        assert await bench.ledger.breakers.opened(bench.mail, breaker) == 2
        states = bench.states()
        taken = {path for path, state in states.items() if state == DEFERRED}
        assert taken == {"a@example.org", "c@example.org"}
        assert {states["b@example.org"], states["d@example.net"]} == {"held"}

    run(test)


def test_a_wildcard_in_a_domain_is_a_character(run: Run) -> None:
    """``_`` and ``%`` would otherwise take back strangers' refusals."""

    async def test(bench: Bench) -> None:
        await bench.refused("a@ex_mple.org", "b@example.org")
        breaker = replace(OPEN, scope="ex_mple.org")
        assert await bench.ledger.breakers.opened(bench.mail, breaker) == 1
        assert bench.states() == {"a@ex_mple.org": DEFERRED, "b@example.org": PENDING}

    run(test)


def test_what_everybody_met_is_held_against_nobody(run: Run) -> None:
    """Who waits for the breaker that opens has met no refusal of its own."""

    async def test(bench: Bench) -> None:
        await bench.waiting("a@example.org", "example.org")
        await bench.waiting("b@example.net", "example.net")
        assert bench.rows()["a@example.org"]["refusal"] == "stop"
        breaker = replace(OPEN, scope="example.org")
        assert await bench.ledger.breakers.opened(bench.mail, breaker) == 0
        rows = bench.rows()
        assert (rows["a@example.org"]["refusal"], rows["a@example.org"]["refused"]) == (
            "",
            None,
        )
        assert rows["b@example.net"]["refusal"] == "stop"

    run(test)


# ---- a breaker closes


@pytest.mark.parametrize("scope", [ROUTE, "example.org"])
def test_what_waited_for_a_breaker_is_due_when_it_closes(run: Run, scope: str) -> None:
    """For that one, in these sources."""

    async def test(bench: Bench) -> None:
        await bench.waiting("a@example.org", scope)
        await bench.waiting("b@example.net", "example.net")
        await bench.waiting("c@example.org", scope, source=bench.other)
        assert await bench.claimed() == []
        await bench.ledger.breakers.opened(bench.mail, replace(OPEN, scope=scope))
        await bench.ledger.breakers.closed(bench.mail, scope)
        waits = {path: row["waits"] for path, row in bench.rows().items()}
        assert waits == {
            "a@example.org": "",
            "b@example.net": "example.net",
            "c@example.org": scope or "*",
        }
        assert await bench.claimed() == [("a@example.org",)]

    run(test)


def test_only_one_is_woken_to_probe(run: Run) -> None:
    """The oldest that nobody has in hand, and that was not tried meanwhile."""

    async def test(bench: Bench) -> None:
        breaker = replace(OPEN, scope="example.org")
        await bench.refused("a@example.org")
        await bench.refused("b@example.org")
        await bench.refused("c@example.net")
        assert not await bench.ledger.breakers.wake_one(
            bench.mail, "example.org", LATER
        )
        await bench.ledger.breakers.opened(bench.mail, breaker)
        assert not await bench.ledger.breakers.wake_one(bench.mail, ROUTE, LATER)
        assert not await bench.ledger.breakers.wake_one(
            RouteMail([bench.other], bench.route), "example.org", LATER
        )
        assert not await bench.ledger.breakers.wake_one(
            bench.mail, "example.org", BEFORE
        )
        assert await bench.ledger.breakers.wake_one(bench.mail, "example.org", LATER)
        assert await bench.claimed() == [("a@example.org",)]
        assert await bench.ledger.breakers.wake_one(bench.mail, "example.org", LATER)
        assert await bench.claimed() == [("b@example.org",)]
        assert not await bench.ledger.breakers.wake_one(
            bench.mail, "example.org", LATER
        )

    run(test)


def test_what_waits_for_a_breaker_that_nobody_keeps_is_let_go(run: Run) -> None:
    """A crash came between the breaker's closing and what waited for it."""

    async def test(bench: Bench) -> None:
        for path in ("a@example.org", "b@example.net"):
            await bench.refused(path)
            scope = path.partition("@")[2]
            breaker = replace(OPEN, scope=scope)
            await bench.ledger.breakers.opened(bench.mail, breaker)
        await bench.ledger.breakers.keep(
            bench.route, replace(OPEN, scope="example.net")
        )
        await bench.ledger.breakers.recall("other:25")
        assert await bench.claimed() == []
        await bench.ledger.breakers.recall(bench.route)
        assert await bench.claimed() == [("a@example.org",)]
        assert bench.rows()["b@example.net"]["waits"] == "example.net"

    run(test)


# ---- refusals ripen


def test_a_refusal_ripens_when_its_confirmation_delay_is_over(run: Run) -> None:
    """Then it is tried again; to look changes nothing."""

    async def test(bench: Bench) -> None:
        await bench.refused("a@Example.org", "b@example.net")
        await bench.refused("c@example.org", at=NOW)  # not yet
        await bench.refused("d@example.org", source=bench.other)
        found = await bench.ledger.breakers.find_due_bounces(bench.mail)
        assert found == (2, 3, 3, ["example.net", "example.org"])
        assert set(bench.states().values()) == {PENDING}
        assert await bench.ledger.breakers.retry_due_bounces(bench.mail) == 2
        assert await bench.claimed() == [("a@Example.org", "b@example.net")]
        assert bench.decided("confirmation-due") == 2
        row = bench.rows()["a@Example.org"]
        assert row["refusal"] == "enhanced-5.1.1"
        assert await bench.ledger.breakers.retry_due_bounces(bench.mail) == 0

    run(test)


@pytest.mark.parametrize(
    ("brake", "braked"),
    [
        (Brake(least=2, share=0.0), True),
        (Brake(least=5, share=0.0), True),
        (Brake(least=6, share=0.0), False),
        (Brake(least=0, share=0.74), True),
        (Brake(least=0, share=0.75), False),
    ],
)
def test_the_brake_is_on_while_too_many_bounces_are_pending(
    run: Run, brake: Brake, *, braked: bool
) -> None:
    """Over half of the least, and over the share: three of four. All are tried again.

    They count until the primary has answered: also in the run after.
    """

    async def test(bench: Bench) -> None:
        await bench.refused("a@example.org", "b@example.org", "c@example.org")
        await bench.tried(await bench.recorded("d@example.org"), "250 ok", Stage.DOT)
        await bench.recorded("e@example.org")  # not tried yet: it does not count
        found = await bench.ledger.breakers.find_due_bounces(bench.mail)
        assert (found.pending, found.handled, found.due) == (3, 4, 3)
        assert await bench.ledger.breakers.retry_due_bounces(bench.mail) == 3
        ripe = [path for path, state in bench.states().items() if state == DEFERRED]
        assert len(ripe) == 3
        again = await bench.ledger.breakers.find_due_bounces(bench.mail)
        assert (again.pending, again.handled, again.due) == (3, 4, 0)
        assert brake.is_on(again.pending, again.handled) == braked

    run(test)


def test_addresses_that_were_accepted_and_are_unknown_now_are_recalled(
    run: Run,
) -> None:
    """Until the primary accepts them again, or the refusal is final."""

    async def test(bench: Bench) -> None:
        for path in ("a@example.org", "b@example.org"):
            await bench.tried(await bench.recorded(path), "250 ok", Stage.DOT)
        await bench.refused("a@example.org", "c@example.org")
        await bench.tried(await bench.recorded("b@example.org"), "550 5.7.1 no")
        memory = await bench.ledger.breakers.recall(bench.route)
        assert memory.lost == ["a@example.org"]

    run(test)


def test_refused_contents_do_not_pull_the_brake(run: Run) -> None:
    """They are expected in bulk; they ripen like the others."""

    async def test(bench: Bench) -> None:
        for n in range(4):
            delivery = await bench.recorded(f"u{n}@example.org")
            await bench.tried(delivery, "554 5.7.1 Spam", Stage.DOT)
        found = await bench.ledger.breakers.find_due_bounces(bench.mail)
        assert (found.due, found.pending) == (4, 0)
        assert not Brake(least=0, share=0.0).is_on(found.pending, found.handled)
        assert await bench.ledger.breakers.retry_due_bounces(bench.mail) == 4
        assert set(bench.states().values()) == {DEFERRED}

    run(test)


# ---- what goes alone


def test_who_must_go_alone_is_claimed_apart(run: Run) -> None:
    """Refused together: a transaction each; dropped, or in doubt: a connection."""

    async def test(bench: Bench) -> None:
        at = NOW - timedelta(days=1)
        refused = await bench.recorded("a@x.org", "b@x.org", "c@x.org")
        await bench.tried(refused, "554 5.7.1 no", Stage.DOT, at=at)
        dropped = await bench.recorded("d@x.org", "e@x.org")
        await bench.tried(dropped, Lost(reason="closed"), Stage.BODY, at=at)
        doubtful = await bench.recorded("f@x.org", "g@x.org")
        await bench.tried(doubtful, Lost(reason="closed"), Stage.DOT, at=at)
        plain = await bench.recorded("h@x.org", "i@x.org")
        await bench.tried(plain, "450 4.2.0 Busy", at=at)
        deliveries = await bench.ledger.messages.claim(
            ClaimRequest(bench.mail, datetime.now(UTC))
        )
        found = {
            "".join(
                each.recipient.forward_path[0] for each in delivery.claimed
            ): delivery.alone
            for delivery in deliveries
        }
        apart = {"a": False, "b": False, "c": False}
        assert found == apart | {"de": True, "fg": True, "hi": False}
        assert all(
            each.solo for delivery in deliveries[:1] for each in delivery.claimed
        )

    run(test)


def test_what_a_later_attempt_must_know_comes_back(run: Run) -> None:
    """Drops, delays, the refusal and since when: exactly."""

    async def test(bench: Bench) -> None:
        at = NOW - timedelta(days=1)
        delivery = await bench.recorded("a@x.org")
        await bench.tried(delivery, "421 4.3.0 bye", Stage.DOT, at=at)
        [delivery] = await bench.ledger.messages.claim(
            ClaimRequest(bench.mail, datetime.now(UTC))
        )
        assert (delivery.claimed[0].drops, delivery.claimed[0].attempts) == (1, 1)
        assert delivery.claimed[0].spent == timedelta(minutes=1)
        await bench.tried(delivery, UNKNOWN, at=at)
        await bench.ledger.breakers.retry_due_bounces(bench.mail)
        [delivery] = await bench.ledger.messages.claim(
            ClaimRequest(bench.mail, datetime.now(UTC))
        )
        claimed = delivery.claimed[0]
        assert (claimed.refusal, claimed.refused) == ("enhanced-5.1.1", at)
        assert delivery.confirms

    run(test)


# ---- controls reach whoever works on the route


def test_controls_are_kept_in_order_and_hold_for_their_route_alone(run: Run) -> None:
    """Kept in order, with a record each; another route's do not concern it."""

    async def body(bench: Bench) -> None:
        url, route = bench.ledger.url, bench.route
        desk = OverrideReader(url, route)
        hook = give(
            url, route, Override(at=NOW, ask=OverrideKind.UP, by="http 127.0.0.1")
        )
        brief = Override(
            at=NOW, ask=OverrideKind.THROTTLE, per_second=5, until=NOW + HOUR
        )
        slow = give(url, route, brief)
        give(
            url,
            f"{route}9",
            Override(at=NOW, ask=OverrideKind.PAUSE, reason="another's"),
        )
        assert desk.after(0) == [hook, slow]
        assert desk.after(hook.id) == [slow]
        assert (desk.in_force().pause, desk.in_force().throttle) == (None, slow)
        with bench.reading() as connection:
            query = sa.select(schema.decisions.c.rule).order_by(schema.decisions.c.id)
            rules = connection.scalars(query).all()
        assert rules[-3:] == ["control-up", "control-throttle", "control-pause"]
        desk.close()

    run(body)


def test_a_run_sees_its_share_and_what_holds_on_its_route(run: Run) -> None:
    """In one look; and whoever asks sees the run, and how fast it goes."""

    async def body(bench: Bench) -> None:
        url, mine = bench.ledger.url, bench.ledger.run_id
        desk = OverrideReader(url, TO)
        brief = Override(
            at=NOW, ask=OverrideKind.THROTTLE, per_second=5, until=NOW + HOUR
        )
        slow = give(url, TO, brief)
        assert await bench.ledger.runs.outlook(TO, 4) == (
            1.0,
            ActiveOverrides(throttle=slow),
        )
        give(url, TO, Override(at=NOW, ask=OverrideKind.THROTTLE))
        assert await bench.ledger.runs.outlook(TO, 4) == (1.0, ActiveOverrides())
        assert (desk.runs(), desk.pace(mine)) == ([mine], {})
        facts: dict[str, object] = {"per_second": 5}
        kind, rule = DecisionKind.THROTTLE, "throttle-set"
        await bench.ledger.note(Decision(at=NOW, kind=kind, rule=rule, evidence=facts))
        pace = desk.pace(mine)
        assert (pace["rule"], pace["per_second"]) == (rule, 5)
        desk.close()

    run(body)


# ---- what a watch reads and writes beside its drains


def test_a_watch_knows_when_the_next_drain_finds_something_to_do(
    run: Run,
) -> None:
    """What is due, what ripens unless the brake is on, and a breaker that may probe."""

    async def body(bench: Bench) -> None:
        watch_log = WatchLog(bench.ledger.url, bench.route, "f" * 32)

        def due(*, braked: bool = False) -> int | None:
            found = watch_log.next_due([bench.mine], [bench.route], braked=braked)
            return None if found is None else to_micros(found)

        assert due() is None
        await bench.refused("a@x.org")
        assert due() == bench.rows()["a@x.org"]["due"]
        assert due(braked=True) is None
        early = NOW - HOUR
        await bench.ledger.breakers.keep(bench.route, replace(OPEN, until=early))
        assert due() == to_micros(early)
        decision = Decision(at=NOW, kind=DecisionKind.WATCH, rule="watch-armed")
        watch_log.note(decision)
        with bench.reading() as connection:
            query = sa.select(schema.decisions.c.run, schema.decisions.c.kind)
            rows = connection.execute(query.order_by(schema.decisions.c.id)).all()
        assert tuple(rows[-1]) == ("f" * 32, "watch")
        watch_log.close()

    run(body)
