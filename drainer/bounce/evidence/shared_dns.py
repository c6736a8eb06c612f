"""DNS for all messages of a run: answers are shared, and domains have time budgets.

A sender controls his own DNS servers. So time is charged to the organisation that is
asked, never to the sender who caused the question. Its servers are not asked for a
while after its budget is used up. Late answers are kept for the next message.
"""

import asyncio
import time
from collections import OrderedDict

import dns.asyncresolver
import dns.exception

from drainer.bounce.evidence.dns import (
    DnsAnswer,
    DnsOutcome,
    absolute_name,
    answer_of,
    answer_of_error,
    lifetime_of,
    make_resolver,
    no_name,
)
from drainer.bounce.evidence.request import DnsServers
from drainer.runtime.public_suffixes import organisation_of

WINDOW_SECONDS = 900.0
"""Time after which a domain has its whole budget again."""
MAX_AT_ONCE = 200
"""Questions that wait for an answer; each holds a socket."""
MAX_ENTRIES = 20_000
MAX_BYTES = 32 * 1024 * 1024
"""Answers that are kept; the oldest are removed first."""

_ENTRY_BYTES = 200
_Key = tuple[str, str]


class SharedResolver:
    """Asks for several messages at once. Everything in it can be cancelled safely."""

    def __init__(self, servers: DnsServers) -> None:
        """Use these servers; raise UsageError if they cannot be used."""
        self._resolver = make_resolver(
            lambda own: dns.asyncresolver.Resolver(configure=own), servers
        )
        self._servers = servers
        self._answers: OrderedDict[_Key, tuple[float, DnsAnswer]] = OrderedDict()
        self._bytes = 0
        self._budgets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._running: dict[_Key, asyncio.Task[DnsAnswer]] = {}

    async def ask(self, name: str, kind: str, seconds: float) -> DnsAnswer:
        """Return an answer within this many seconds, whatever the servers do."""
        key = name, kind
        known = self._answers.get(key)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        owner = owner_of(name)
        late = DnsAnswer(
            DnsOutcome.FAILED, detail=f"DNS of {owner} did not answer in time"
        )
        task = self._running.get(key)
        if task is None:
            left = min(self._servers.timeout, self._left(owner))
            if left <= 0 or len(self._running) >= MAX_AT_ONCE:
                return late
            task = asyncio.create_task(self._look_up(key, owner, left))
            self._running[key] = task
        done, _ = await asyncio.wait((task,), timeout=max(0.0, seconds))
        return task.result() if done else late

    async def _look_up(self, key: _Key, owner: str, seconds: float) -> DnsAnswer:
        """Ask, charge the time to the owner, and keep the answer."""
        started = time.monotonic()
        try:
            answer = await self._resolve(*key, seconds)
        finally:
            del self._running[key]
            self._charge(owner, time.monotonic() - started)
        if (
            answer.outcome is DnsOutcome.FAILED
            and time.monotonic() - started >= seconds
        ):
            words = f"DNS of {owner} did not answer in time ({answer.detail})"
            answer = answer._replace(detail=words)
        self._keep(key, answer)
        return answer

    async def _resolve(self, name: str, kind: str, seconds: float) -> DnsAnswer:
        absolute = absolute_name(name)
        if absolute is None:
            return no_name(name)
        try:
            async with asyncio.timeout(seconds):
                found = await self._resolver.resolve(
                    absolute,
                    kind,
                    search=False,  # otherwise `none` may become `pass` by resolv.conf
                    raise_on_no_answer=False,
                    lifetime=seconds,
                )
        except (dns.exception.DNSException, OSError, ValueError, EOFError) as error:
            return answer_of_error(name, kind, error)  # TimeoutError is an OSError
        return answer_of(name, kind, found)

    def _left(self, owner: str) -> float:
        since, spent = self._budgets.get(owner, (0.0, 0.0))
        if time.monotonic() - since > WINDOW_SECONDS:
            return self._servers.domain_budget
        return self._servers.domain_budget - spent

    def _charge(self, owner: str, seconds: float) -> None:
        now = time.monotonic()
        since, spent = self._budgets.pop(owner, (now, 0.0))
        if now - since > WINDOW_SECONDS:
            since, spent = now, 0.0
        self._budgets[owner] = since, spent + seconds
        if len(self._budgets) > MAX_ENTRIES:
            self._budgets.popitem(last=False)

    def _keep(self, key: _Key, answer: DnsAnswer) -> None:
        self._forget(key)
        self._answers[key] = time.monotonic() + lifetime_of(answer), answer
        self._bytes += _size(key, answer)
        while len(self._answers) > MAX_ENTRIES or self._bytes > MAX_BYTES:
            self._forget(next(iter(self._answers)))

    def _forget(self, key: _Key) -> None:
        known = self._answers.pop(key, None)
        if known is not None:
            self._bytes -= _size(key, known[1])


def _size(key: _Key, answer: DnsAnswer) -> int:
    return _ENTRY_BYTES + len(key[0]) + sum(map(len, answer.records))


_REVERSE = {"in-addr.arpa": 5, "ip6.arpa": 14}
"""Zones of addresses: labels of a part that is delegated, an IPv4 /24, an IPv6 /48."""


def owner_of(name: str) -> str:
    """Return the domain whose servers answer for a name, as far as its text shows."""
    for zone, count in _REVERSE.items():
        if name.endswith("." + zone):
            return ".".join(name.split(".")[-count:])
    return organisation_of(name) or name
