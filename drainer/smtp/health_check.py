"""The health check: ask the primary everything except to accept a message.

Connect on every address, banner, EHLO, STARTTLS, AUTH, MAIL, RCPT of addresses that
must be accepted and of one that must be refused, RSET, QUIT; never DATA.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from drainer.mail.envelope import domain_of
from drainer.mail.reply import Lost, Reply, Stage, is_success
from drainer.mail.reply_codes import CLOSING, TRANSIENT
from drainer.policy.breaker import remedies
from drainer.policy.classify.classifier import classify
from drainer.policy.classify.verdict import Verdict
from drainer.smtp.certificate import describe
from drainer.smtp.connection import (
    ConnectFailure,
    Connection,
    ConnectStep,
    connect,
)
from drainer.smtp.hosts import all_hosts, at_host
from drainer.smtp.own_name import has_own_name
from drainer.smtp.peer_probe import expects_tls, identify
from drainer.smtp.route import Route
from drainer.smtp.server_address import ServerAddress, at_address, resolve
from drainer.smtp.xclient import ClientIntroduction

OK, WARN, FAIL = "ok", "warn", "fail"
_GREYLISTING, _RELAY, _FAULTS = "greylisting", "relay", ("fault", "disk")
"""Ids of remedies: nothing is wrong, or a part of the primary does not work."""
SILENCE = 5.0
"""Seconds without a banner after which the check asks whether the port speaks TLS."""
_DONE = Lost(reason="closed", detail="by us")
"""Nothing is in flight any more: with TLS, a farewell may outlast the check."""


class HealthProbe(Struct, frozen=True, kw_only=True):
    """``[health]``: what the check asks for."""

    #: Addresses that must be accepted.
    accept: tuple[str, ...] = ()
    #: Domain of a random address that must be refused; '' = do not ask.
    reject_domain: str = ""
    reject: bool = True
    sender: str = ""


class HealthFinding(Struct, frozen=True, kw_only=True):
    """One line of the table."""

    stage: str
    verdict: str
    reply: str
    seconds: float
    hint: str = ""
    facts: dict[str, object] = msgspec.field(default_factory=dict)
    #: The primary answered that it refuses this host, and not a recipient.
    refuses_us: bool = False


@dataclass(slots=True)
class HealthReport:
    """All findings of one check."""

    findings: list[HealthFinding] = field(default_factory=list)
    #: The primary uses our own name.
    loop: bool = False

    @property
    def ready(self) -> bool:
        """Whether nothing failed."""
        return not self.loop and all(f.verdict != FAIL for f in self.findings)

    def add(self, stage: str, step: ConnectStep, verdict: str, hint: str = "") -> None:
        """Add the finding of one step."""
        is_asked = step.stage in (Stage.MAIL, Stage.RCPT)
        self.findings.append(
            HealthFinding(
                refuses_us=is_asked and _refuses_us(step.stage, step.answer),
                stage=stage,
                verdict=verdict,
                reply=str(step.answer),
                seconds=step.seconds,
                hint=hint,
                facts=step.facts,
            )
        )

    def advise(self, stage: str, hint: str) -> None:
        """Add a warning that comes from no reply."""
        nothing = HealthFinding(
            stage=stage, verdict=WARN, reply="", seconds=0.0, hint=hint
        )
        self.findings.append(nothing)


async def check(
    route: Route, probe: HealthProbe, health: HealthReport | None = None
) -> HealthReport:
    """Check every server of the primary; never raises for a peer.

    Adds the findings to ``health``, one by one, if it is given.
    """
    health, hosts = HealthReport() if health is None else health, all_hosts(route)
    reached = False
    for tier in route.all_tiers:
        first, is_well = len(health.findings), False
        for host in tier:
            before = len(health.findings)
            reached |= await _check_host(health, at_host(route, host), probe)
            is_well |= all(f.verdict != FAIL for f in health.findings[before:])
        if is_well:  # drainer avoids an equal server that refuses us
            _forgive(health, lambda each: each.refuses_us, first)
    if reached:
        several = ("resolve", Stage.BANNER) if len(hosts) > 1 else ()
        _forgive(health, lambda each: each.stage in (*several, Stage.CONNECT))
    return health


async def _check_host(health: HealthReport, route: Route, probe: HealthProbe) -> bool:
    """Check every address of a server; return True when a session was open."""
    try:
        addresses = await resolve(route)
    except OSError as error:
        lost = Lost(reason="unresolved", detail=str(error))
        step = ConnectStep(stage=Stage.CONNECT, answer=lost, seconds=0.0)
        health.add("resolve", step, FAIL, remedies.hint(Stage.CONNECT, lost))
        return False
    found = [await _check_address(health, route, each, probe) for each in addresses]
    return any(found)


def _forgive(
    health: HealthReport, is_lesser: Callable[[HealthFinding], bool], first: int = 0
) -> None:
    """Make a failure a warning when another address or server does better.

    The findings before the ``first`` stay.

    That is one that does not answer, and among several servers one that does not greet
    us, or that refuses us although an equal one does not.
    """
    health.findings[first:] = [
        replace(f, verdict=WARN) if f.verdict == FAIL and is_lesser(f) else f
        for f in health.findings[first:]
    ]


async def _check_address(
    health: HealthReport, route: Route, address: ServerAddress, probe: HealthProbe
) -> bool:
    """Check one address; return True when a session was open."""
    here = at_address(route, address)
    answer = await _connect(here)
    if isinstance(answer, ConnectFailure):
        for step in answer.steps[:-1]:
            health.add(step.stage.value, step, OK)
        await _add_failure(health, here, answer.steps)
        return False
    for step in answer.steps:
        if step.stage is Stage.STARTTLS and not is_success(step.answer):
            hint = f"{remedies.hint(step.stage, step.answer)}; {remedies.IN_THE_CLEAR}"
            health.add(step.stage.value, step, WARN, hint)
        else:
            health.add(step.stage.value, step, OK)
    if (
        route.forward_client != "off"
        and not ClientIntroduction.on(route, answer.extensions).kind
    ):
        health.advise("forward client", remedies.NOT_OFFERED)
    if route.speaks_lmtp:
        health.advise("lmtp", remedies.BYPASSED)
    if await has_own_name(answer, route):
        health.loop = True
    else:
        limit = route.timeouts.command
        await _Interview(health, answer, probe, str(address), limit).run()
    answer.wire.abort(_DONE)
    return True


async def _connect(route: Route) -> Connection | ConnectFailure:
    """Open a session; do not wait for the banner of a port that speaks TLS."""
    opening = asyncio.ensure_future(connect(route))
    try:
        await asyncio.wait((opening,), timeout=SILENCE)
        if not opening.done() and route.tls != "implicit" and await expects_tls(route):
            lost = Lost(reason="timeout", detail="it is silent, and speaks TLS")
            step = ConnectStep(stage=Stage.BANNER, answer=lost, seconds=SILENCE)
            return ConnectFailure([step])
        return await opening
    finally:
        opening.cancel()


async def _add_failure(
    health: HealthReport, route: Route, steps: tuple[ConnectStep, ...]
) -> None:
    """Add the step that failed; for a bad certificate, also what it says."""
    step = steps[-1]
    hint = await identify(route, step.stage, step.answer)
    hint = hint or remedies.hint(step.stage, step.answer)
    sends_header = route.proxy_protocol != "off" and not route.socket_path
    if sends_header and step.stage in (Stage.BANNER, Stage.EHLO):
        hint = remedies.PROXY_SENT
    if _ended_after_handshake(route, steps):
        hint = remedies.AFTER_HANDSHAKE
    bad = isinstance(step.answer, Lost) and step.answer.reason == "tls"
    if step.stage is Stage.STARTTLS and bad and (route.verifies or route.dane):
        step = replace(step, facts=step.facts | await _certificate_of(route))
        if _is_nameless(step.facts):
            hint = remedies.NO_NAMES
    health.add(step.stage.value, step, FAIL, hint)


def _ended_after_handshake(route: Route, steps: tuple[ConnectStep, ...]) -> bool:
    """Return whether the primary hung up at the first words under TLS.

    So does one that wants a client certificate: in TLS 1.3 the handshake is over for us
    before it looks for one (RFC 8446 4.4.2.4).
    """
    *before, last = steps
    lost = isinstance(last.answer, Lost) and last.answer.reason in ("closed", "reset")
    if last.stage is Stage.BANNER:
        return lost and route.tls == "implicit"
    is_next = bool(before) and before[-1].stage is Stage.STARTTLS
    return (
        lost and last.stage is Stage.EHLO and is_next and is_success(before[-1].answer)
    )


async def _certificate_of(route: Route) -> dict[str, object]:
    """Return the facts of a certificate that was not accepted; {} for none.

    A failed handshake does not show the certificate. So drainer opens another session
    that accepts any certificate, and sends nothing on it but EHLO and QUIT: no
    password, no message.
    """
    tls = "implicit" if route.tls == "implicit" else "required"
    files = replace(route.tls_files, ca="", pin=())
    seen = await _connect(
        replace(route, tls=tls, verify=False, login=None, tls_files=files, dane=None)
    )
    facts = [s.facts for s in seen.steps if s.stage is Stage.STARTTLS]
    if isinstance(seen, Connection):
        await seen.wire.ask("QUIT", route.timeouts.quit)
        seen.wire.abort(_DONE)
    return facts[-1] if facts else {}


def _is_nameless(facts: Mapping[str, object]) -> bool:
    """Return whether a step shows a certificate that has no subjectAltName."""
    der = facts.get("certificate_der")
    return isinstance(der, str) and not describe(bytes.fromhex(der)).get("names", True)


@dataclass(slots=True)
class _Interview:
    """MAIL, RCPTs, RSET and QUIT on one session."""

    health: HealthReport
    connection: Connection
    probe: HealthProbe
    address: str
    #: Seconds for each answer.
    limit: float
    #: Whether any known-good recipient was accepted.
    has_accepted: bool = False

    async def run(self) -> None:
        mail = await self._ask(Stage.MAIL, f"MAIL FROM:<{self.probe.sender}>")
        if not is_success(mail.answer):
            verdict = (
                WARN
                if remedies.topic(Stage.MAIL, mail.answer) == _GREYLISTING
                else FAIL
            )
            self.health.add("mail", mail, verdict, self._hint_at_mail(mail.answer))
        else:
            self.health.add("mail", mail, OK)
            await self._recipients()
            await self._reset()
        quit_ = await self._ask(Stage.QUIT, "QUIT")
        verdict = OK if is_success(quit_.answer) else WARN  # mail does not depend on it
        self.health.add("quit", quit_, verdict)

    def _hint_at_mail(self, answer: Reply | Lost) -> str:
        """Return what to do; if it wants TLS, also why there is none."""
        failed = [
            step
            for step in self.connection.steps
            if step.stage is Stage.STARTTLS and not is_success(step.answer)
        ]
        if remedies.topic(Stage.MAIL, answer) != "tls" or not failed:
            return remedies.hint(Stage.MAIL, answer)
        why = failed[-1].answer
        return (
            f"it requires TLS, and the handshake failed: {why}:"
            f" {remedies.hint(Stage.STARTTLS, why)}"
        )

    async def _reset(self) -> None:
        step = await self._ask(Stage.RSET, "RSET")
        if is_success(step.answer):
            self.health.add("rset", step, OK)
            return
        lost = isinstance(step.answer, Lost)
        hint = remedies.hint(Stage.RSET, step.answer) or remedies.NOT_RESET
        self.health.add("rset", step, FAIL if lost else WARN, hint)

    async def _recipients(self) -> None:
        for forward_path in self.probe.accept:
            step = await self._ask(Stage.RCPT, f"RCPT TO:<{forward_path}>")
            good = is_success(step.answer)
            self.has_accepted |= good
            hint = "" if good else remedies.hint(Stage.RCPT, step.answer)
            waits = remedies.topic(Stage.RCPT, step.answer) == _GREYLISTING
            verdict = OK if good else WARN if waits else FAIL
            self.health.add(f"rcpt {forward_path}", step, verdict, hint)
        if not self.probe.accept:
            self.health.advise("rcpt known-good", remedies.NO_KNOWN_GOOD)
        if self.probe.reject:
            await self._random_recipient()

    async def _random_recipient(self) -> None:
        domain = self.probe.reject_domain or next(
            (domain_of(address) for address in self.probe.accept), ""
        )
        if not domain:
            self.health.advise("rcpt random", remedies.NO_DOMAIN)
            return
        name = f"drainer-check-{secrets.token_hex(6)}@{domain}"
        step = await self._ask(Stage.RCPT, f"RCPT TO:<{name}>")
        self.health.add("rcpt random", step, *self._judge_random(step.answer))

    def _judge_random(self, answer: Reply | Lost) -> tuple[str, str]:
        """Return verdict and hint: it must be refused, and permanently.

        Without a known-good address nothing else shows whether the user table is there.
        If it accepts nothing, a refusal of this host says nothing about a recipient.
        A primary that defers strangers says nothing about it: greylisting ends when the
        mail itself comes, and no check would ever see that.
        """
        known = bool(self.probe.accept)
        if isinstance(answer, Lost) or answer.code == CLOSING:
            return FAIL, remedies.hint(Stage.RCPT, answer)
        if is_success(answer):
            return WARN, remedies.CATCH_ALL if known else remedies.BLIND
        topic = remedies.topic(Stage.RCPT, answer)
        if topic == _GREYLISTING:
            return WARN, remedies.hint(Stage.RCPT, answer)
        if not self.has_accepted and _refuses_us(Stage.RCPT, answer):
            return FAIL, remedies.hint(Stage.RCPT, answer)
        if answer.category == TRANSIENT:
            failed = not known and topic in _FAULTS
            return FAIL if failed else WARN, remedies.UNDECIDED
        return OK, ""

    async def _ask(self, stage: Stage, command: str) -> ConnectStep:
        loop = asyncio.get_running_loop()
        start = loop.time()
        answer = await self.connection.wire.ask(command, self.limit)
        return ConnectStep(
            stage=stage,
            answer=answer,
            seconds=loop.time() - start,
            facts={"address": self.address},
        )


def _refuses_us(stage: Stage, answer: Reply | Lost) -> bool:
    """Return whether a refusal says that it is about this host, for any recipient."""
    topic = remedies.topic(stage, answer)
    is_stop = bool(topic) and classify(answer, stage).verdict is Verdict.STOP
    return is_stop or topic == _RELAY
