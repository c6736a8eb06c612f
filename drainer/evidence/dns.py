"""The one place that asks DNS: absolute names, time limits, caps, a cache.

"There is none" and "nobody answered" are different answers: the first may be
decided on, the second is asked again later.
"""

import enum
import time
from collections.abc import Sequence
from typing import NamedTuple

import dns.exception
import dns.message
import dns.name
import dns.rdata
import dns.resolver

from drainer.errors import UsageError
from drainer.evidence import Servers

MAX_RECORDS = 100
MAX_BYTES = 64 * 1024
"""Of the records of one answer; beyond either it counts as none that can be used."""

_CACHED = 20_000
_FAILURE_SECONDS = 300.0
"""How long an unanswered question is not asked again."""
_ANSWER_SECONDS = 3600.0


class Outcome(enum.StrEnum):
    """How a question ended."""

    FOUND = "found"
    #: The name exists, and has no record of that type.
    ABSENT = "absent"
    NXDOMAIN = "nxdomain"
    #: Timeout, SERVFAIL, a refusal or nonsense: nobody knows.
    FAILED = "failed"


class Answer(NamedTuple):
    """An outcome; records as text, TXT as the octets of their strings, joined.

    An MX record is ``PREFERENCE NAME``, names are without the dot at their end.
    """

    outcome: Outcome
    records: tuple[bytes, ...] = ()
    detail: str = ""
    #: Whose records they are: the name that was asked for, or what it is an alias of.
    owner: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """The records as text, for all types but TXT."""
        return tuple(record.decode("ascii", "replace") for record in self.records)


class Dns:
    """Asks, and remembers for a run. Not for several threads at once."""

    def __init__(self, servers: Servers) -> None:
        """Use the servers that are given, else those of the system.

        Raises UsageError when there are none, or an address is none.
        """
        try:
            self._resolver = dns.resolver.Resolver(configure=not servers.addresses)
            if servers.addresses:
                self._resolver.port = servers.port
                self._resolver.nameservers = list(servers.addresses)
        except (dns.resolver.NoResolverConfiguration, ValueError) as error:
            message = f"no usable DNS server: {error}"
            raise UsageError(message, hint="set [bounce] dns_servers") from None
        self._servers = servers
        self._cache: dict[tuple[str, str], tuple[float, Answer]] = {}
        self._deadline = time.monotonic() + servers.budget

    def begin(self) -> None:
        """Start another message, with its own budget of time."""
        self._deadline = time.monotonic() + self._servers.budget

    def ask(self, name: str, kind: str) -> Answer:
        """Return the records of a type (A, AAAA, MX, PTR, TXT, SPF) of a name.

        Never raises. A name that DNS cannot hold has no records.
        """
        key = name.lower().rstrip("."), kind
        now = time.monotonic()
        known = self._cache.get(key)
        if known and known[0] > now:
            return known[1]
        left = min(self._servers.timeout, self._deadline - now)
        if left <= 0:
            return Answer(Outcome.FAILED, detail="no time is left for this message")
        answer = self._resolve(key[0], kind, left)
        if len(self._cache) >= _CACHED:
            self._cache.clear()
        failed = answer.outcome is Outcome.FAILED
        lasts = _FAILURE_SECONDS if failed else _ANSWER_SECONDS
        self._cache[key] = now + lasts, answer
        return answer

    def _resolve(self, name: str, kind: str, seconds: float) -> Answer:
        try:
            absolute = dns.name.Name((*name.encode().split(b"."), b""))
        except (dns.exception.DNSException, UnicodeError):
            return Answer(Outcome.NXDOMAIN, detail=f"{name[:80]!r} is no name")
        try:
            found = self._resolver.resolve(
                absolute,
                kind,
                search=False,  # else `none` may become `pass` by resolv.conf
                raise_on_no_answer=False,
                lifetime=seconds,
            )
        except dns.resolver.NXDOMAIN:
            return Answer(Outcome.NXDOMAIN, detail=f"{name} does not exist")
        except (dns.exception.DNSException, OSError, ValueError) as error:
            if _is_loop(error):
                return Answer(Outcome.ABSENT, detail=f"{name} is an alias of itself")
            words = type(error).__name__
            return Answer(Outcome.FAILED, detail=f"{kind} {name}: {words}")
        owner = found.canonical_name.to_text(omit_final_dot=True).lower()
        return _answer(name, kind, list(found.rrset or ()))._replace(owner=owner)


def _is_loop(error: Exception) -> bool:
    """Whether aliases led round in a circle: an answer, though a useless one."""
    errors = getattr(error, "kwargs", {}).get("errors", ())
    return any(isinstance(each[3], dns.message.ChainTooLong) for each in errors)


def _answer(name: str, kind: str, rdatas: Sequence[dns.rdata.Rdata]) -> Answer:
    records = tuple(map(_octets, rdatas))
    if not records:
        return Answer(Outcome.ABSENT, detail=f"{name} has no {kind}")
    if len(records) > MAX_RECORDS or sum(map(len, records)) > MAX_BYTES:
        return Answer(Outcome.FAILED, detail=f"{kind} {name}: too many records")
    return Answer(Outcome.FOUND, records)


def _octets(rdata: dns.rdata.Rdata) -> bytes:
    strings = getattr(rdata, "strings", None)
    if strings is not None:
        return b"".join(strings)
    if (exchange := getattr(rdata, "exchange", None)) is not None:
        preference = getattr(rdata, "preference", 0)
        return f"{preference} {exchange.to_text(omit_final_dot=True)}".encode()
    if (target := getattr(rdata, "target", None)) is not None:
        return bytes(target.to_text(omit_final_dot=True), "ascii")
    return rdata.to_text().encode()
