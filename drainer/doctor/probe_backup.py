"""Ask a backup: each address, TLS, recipients, relaying, test messages."""

import asyncio
import secrets
import socket
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from drainer.doctor.checks.facts import BackupFacts, Certificate, DialogueAnswer
from drainer.doctor.dialogue import (
    LIMITS,
    LOOK_SECONDS,
    Dialogue,
    answer_of,
    open_talk,
    seconds_ahead,
)
from drainer.doctor.test_messages import eicar, gtube
from drainer.mail.reply import Lost, Stage
from drainer.runtime.process import utcnow
from drainer.smtp.certificate import describe
from drainer.smtp.connection import ConnectFailure, Connection, connect
from drainer.smtp.post import OutgoingMail, post
from drainer.smtp.route import Route, Timeouts

MAX_ADDRESSES = 4
TEST_SECONDS = 60.0
"""Time limit for the reply to a test message: a filter may take long."""
ELSEWHERE = "drainer-doctor@example.com"
"""Of a domain that accepts no mail and is reserved (RFC 2606 3)."""


class BackupProbe(Struct, frozen=True, kw_only=True):
    """The questions for every backup."""

    domain: str
    helo: str
    sender: str = ""
    #: '' = no existing recipient is known.
    recipient: str = ""
    #: Hosts that get the test messages.
    tested: frozenset[str] = frozenset()
    limits: Timeouts = LIMITS
    seconds: float = LOOK_SECONDS


async def look_at(
    host: str, port: int, addresses: Sequence[str], visit: BackupProbe
) -> BackupFacts:
    """Return what a backup answers; questions without time stay unanswered."""
    look = _Look(host, port, addresses[:MAX_ADDRESSES], visit)
    try:
        async with asyncio.timeout(visit.seconds):
            await look.run()
    except TimeoutError:
        look.facts.setdefault("reached", ())
        if not look.facts["reached"]:
            look.facts["problem"] = f"no answer within {visit.seconds:g} s"
    finally:
        look.close()
    await look.send_tests()
    return BackupFacts(host=host, now=utcnow(), recipient=visit.recipient, **look.facts)


class _Look:
    """The examination of one backup; ``facts`` are those known so far."""

    def __init__(
        self, host: str, port: int, addresses: Sequence[str], visit: BackupProbe
    ) -> None:
        self.facts: dict[str, Any] = {}
        if host not in visit.tested:
            self.facts["untested"] = "no test message was requested"
        self._visit = visit
        self._routes = [
            Route(
                host=host,
                port=port,
                address=address,
                helo=visit.helo,
                timeouts=visit.limits,
            )
            for address in addresses
        ]
        self._route: Route | None = None
        self._talks: list[Dialogue] = []

    async def run(self) -> None:
        talk = await self._reach()
        if talk is not None:
            await asyncio.gather(self._verify(talk.connection), self._interview(talk))

    def close(self) -> None:
        for talk in self._talks:
            talk.connection.wire.close()

    async def _open(
        self, route: Route, *, tls: str, verify: bool = False
    ) -> tuple[Dialogue | None, DialogueAnswer]:
        talk, said = await open_talk(route, tls=tls, verify=verify)
        if talk is not None:
            self._talks.append(talk)
        return talk, said

    async def _reach(self) -> Dialogue | None:
        """Open a session on every address, with TLS if possible; keep one."""
        opening = (self._open(route, tls="opportunistic") for route in self._routes)
        found = list(zip(self._routes, await asyncio.gather(*opening), strict=True))
        self.facts["reached"] = tuple((r.address, said) for r, (_, said) in found)
        standing = [(route, talk) for route, (talk, _) in found if talk is not None]
        if not standing:
            return None
        self._route, talk = standing[0]
        self._note_greeting(talk.connection, self._route)
        await asyncio.gather(*(other.leave() for _, other in standing[1:]))
        return talk

    def _note_greeting(self, connection: Connection, route: Route) -> None:
        self.facts |= {
            "offers_tls": connection.tls or "starttls" in connection.extensions,
            "handshake": _starttls(connection),
            "certificate": _certificate(connection),
            "ahead": seconds_ahead(str(connection.banner), utcnow()),
            "is_here": _is_here(route),
        }

    async def _verify(self, connection: Connection) -> None:
        """Open another session that requires a valid certificate."""
        if self._route is None or not self.facts["offers_tls"]:
            return
        talk, said = await self._open(self._route, tls="required", verify=True)
        if talk is not None:
            self.facts["distrust"] = ""
            await talk.leave()
        elif connection.tls and isinstance(said.answer, Lost):
            broken = said.answer.reason == "tls"
            self.facts["distrust"] = said.answer.detail if broken else None
        self.facts["handshake"] = self.facts["handshake"] or said

    async def _interview(self, talk: Dialogue) -> None:
        visit = self._visit
        if visit.recipient:
            self.facts["known"] = await talk.ask(visit.sender, visit.recipient)
        stranger = f"drainer-doctor-{secrets.token_hex(6)}@{visit.domain}"
        self.facts["stranger"] = await talk.ask(visit.sender, stranger)
        null_sender = await talk.ask("", ELSEWHERE)
        ours = await talk.ask(f"postmaster@{visit.domain}", ELSEWHERE)
        self.facts["elsewhere"] = (null_sender, ours)
        await talk.leave()

    async def send_tests(self) -> None:
        """Send GTUBE and EICAR, if the operator named this host for them."""
        if self._route is None or self._route.host not in self._visit.tested:
            return
        recipient, helo = self._visit.recipient, self._visit.helo
        route = replace(
            self._route, timeouts=replace(self._visit.limits, dot=TEST_SECONDS)
        )
        now = utcnow()
        self.facts["gtube"], self.facts["eicar"] = await asyncio.gather(
            _send(route, recipient, gtube(recipient, helo, now)),
            _send(route, recipient, eicar(recipient, helo, now)),
        )


async def _send(route: Route, recipient: str, content: bytes) -> DialogueAnswer:
    connection = await connect(route)
    if isinstance(connection, ConnectFailure):
        return answer_of(connection.steps[-1])
    letter = OutgoingMail(recipient=recipient, content=content)
    return answer_of(await post(connection, route.timeouts, letter))


def _starttls(connection: Connection) -> DialogueAnswer | None:
    """Return how STARTTLS ended; None when another connection is in use."""
    for step in connection.steps:
        if step.stage is Stage.STARTTLS:
            return answer_of(step)
    return None


def _certificate(connection: Connection) -> Certificate | None:
    for step in connection.steps:
        der = step.facts.get("certificate_der")
        if isinstance(der, str):
            facts = describe(bytes.fromhex(der))
            ends = facts["not_after"]
            return Certificate(
                subject=facts["subject"],
                names=tuple(facts.get("names", ())),
                not_after=datetime.fromisoformat(ends) if ends else None,
            )
    return None


def _is_here(route: Route) -> bool:
    """Return whether our own address towards a host is its address; sends no packet."""
    family = socket.AF_INET6 if ":" in route.address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((route.address, route.port))
            return bool(probe.getsockname()[0] == route.address)
    except OSError:
        return False
