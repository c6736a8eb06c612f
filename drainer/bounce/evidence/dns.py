"""DNS questions: absolute names, time limits, caps, a cache.

"There is none" and "no answer" are different: drainer decides on the first, and asks
again later after the second.
"""

import enum
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rdata
import dns.resolver

from drainer.bounce.evidence.request import DnsServers
from drainer.errors import UsageError

_Resolver = TypeVar("_Resolver", bound=dns.resolver.BaseResolver)

MAX_RECORDS = 100
MAX_BYTES = 64 * 1024
"""Limits for the records of one answer; above either one the answer is not used."""

UNKNOWN_TTL = 60.0
"""Seconds for which an answer is valid that does not say so, or that failed."""

_CACHED = 20_000
_FAILURE_SECONDS = 300.0
"""How long an unanswered question is not asked again."""
_ANSWER_SECONDS = 3600.0


class DnsOutcome(enum.StrEnum):
    """How a question ended."""

    FOUND = "found"
    #: The name exists, but has no record of that type.
    ABSENT = "absent"
    NXDOMAIN = "nxdomain"
    #: Timeout, SERVFAIL, a refusal or nonsense: there may be a record.
    FAILED = "failed"


class DnsAnswer(NamedTuple):
    """An outcome; records as text, TXT as the bytes of their strings, joined.

    An MX record is ``PREFERENCE NAME``. Names have no dot at the end.
    """

    outcome: DnsOutcome
    records: tuple[bytes, ...] = ()
    detail: str = ""
    #: The owner of the records: the name of the question, or the name that it is an
    #: alias of.
    owner: str = ""
    #: Seconds for which it is valid, aliases included.
    ttl: float = UNKNOWN_TTL
    #: Whether the resolver says that DNSSEC proves it (the AD bit).
    proven: bool = False

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the records as text, for all types but TXT."""
        return tuple(record.decode("ascii", "replace") for record in self.records)


NO_TIME = DnsAnswer(DnsOutcome.FAILED, detail="no time is left for this message")
Resolve = Callable[[str, str, float], DnsAnswer]
"""Asks for (name, type) and waits at most this many seconds; it never raises."""


class Resolver:
    """Asks, and keeps answers for a run. Do not share it between threads."""

    def __init__(self, servers: DnsServers, resolve: Resolve | None = None) -> None:
        """Use the given servers, or those of the system.

        ``resolve`` asks in their place. Raises UsageError if there are none, or an
        address is not valid.
        """
        if resolve is None:
            self._resolver = make_resolver(
                lambda own: dns.resolver.Resolver(configure=own), servers
            )
            resolve = _direct(self._resolver)
        self._resolve = resolve
        self._servers = servers
        self._cache: dict[tuple[str, str], tuple[float, DnsAnswer]] = {}
        self._deadline = time.monotonic() + servers.budget

    def begin(self) -> None:
        """Start another message, with its own budget of time."""
        self._deadline = time.monotonic() + self._servers.budget

    def ask(self, name: str, kind: str) -> DnsAnswer:
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
            return NO_TIME
        answer = self._resolve(*key, left)
        if len(self._cache) >= _CACHED:
            self._cache.clear()
        self._cache[key] = now + lifetime_of(answer), answer
        return answer


def lifetime_of(answer: DnsAnswer) -> float:
    """Return for how many seconds an answer is not asked for again."""
    failed = answer.outcome is DnsOutcome.FAILED
    return _FAILURE_SECONDS if failed else _ANSWER_SECONDS


def make_resolver(make: Callable[[bool], _Resolver], servers: DnsServers) -> _Resolver:
    """Return a resolver of dnspython, made by ``make(whether to configure itself)``.

    Raises UsageError if there is no server, or an address is not valid.
    """
    try:
        resolver = make(not servers.addresses)
        if servers.addresses:
            resolver.port = servers.port
            resolver.nameservers = list(servers.addresses)
        resolver.set_flags(dns.flags.RD | dns.flags.AD)  # RFC 6840 5.7
    except (dns.resolver.NoResolverConfiguration, ValueError) as error:
        message = f"no usable DNS server: {error}"
        raise UsageError(message, hint="set [bounce] dns_servers") from None
    return resolver


def _direct(resolver: dns.resolver.Resolver) -> Resolve:
    """Return the function that asks in this thread."""

    def resolve(name: str, kind: str, seconds: float) -> DnsAnswer:
        absolute = absolute_name(name)
        if absolute is None:
            return no_name(name)
        try:
            found = resolver.resolve(
                absolute,
                kind,
                search=False,  # otherwise `none` may become `pass` by resolv.conf
                raise_on_no_answer=False,
                lifetime=seconds,
            )
        except (dns.exception.DNSException, OSError, ValueError) as error:
            return answer_of_error(name, kind, error)
        return answer_of(name, kind, found)

    return resolve


def absolute_name(name: str) -> dns.name.Name | None:
    """Return a name as DNS holds it; None if it cannot."""
    try:
        return dns.name.Name((*name.encode().split(b"."), b""))
    except (dns.exception.DNSException, UnicodeError):
        return None


def no_name(name: str) -> DnsAnswer:
    """Return the answer for a name that DNS cannot hold."""
    return DnsAnswer(DnsOutcome.NXDOMAIN, detail=f"{name[:80]!r} is not a valid name")


def answer_of_error(name: str, kind: str, error: Exception) -> DnsAnswer:
    """Return the answer that an error of dnspython means."""
    if isinstance(error, dns.resolver.NXDOMAIN):
        return DnsAnswer(DnsOutcome.NXDOMAIN, detail=f"{name} does not exist")
    if _is_loop(error):
        return DnsAnswer(DnsOutcome.ABSENT, detail=f"{name} is an alias of itself")
    return DnsAnswer(DnsOutcome.FAILED, detail=f"{kind} {name}: {type(error).__name__}")


def _is_loop(error: Exception) -> bool:
    """Return whether aliases form a circle: an answer, though a useless one."""
    errors = getattr(error, "kwargs", {}).get("errors", ())
    return any(isinstance(each[3], dns.message.ChainTooLong) for each in errors)


def answer_of(name: str, kind: str, found: dns.resolver.Answer) -> DnsAnswer:
    """Return the answer that was found; too many records count as no answer."""
    owner = found.canonical_name.to_text(omit_final_dot=True).lower()
    records = tuple(map(_rdata_bytes, found.rrset or ()))
    proven = bool(found.response.flags & dns.flags.AD)
    if not records:
        words = f"{name} has no {kind}"
        return DnsAnswer(DnsOutcome.ABSENT, detail=words, owner=owner, proven=proven)
    if len(records) > MAX_RECORDS or sum(map(len, records)) > MAX_BYTES:
        return DnsAnswer(DnsOutcome.FAILED, detail=f"{kind} {name}: too many records")
    ttl = float(found.chaining_result.minimum_ttl)
    return DnsAnswer(DnsOutcome.FOUND, records, "", owner, ttl, proven)


def _rdata_bytes(rdata: dns.rdata.Rdata) -> bytes:
    strings = getattr(rdata, "strings", None)
    if strings is not None:
        return b"".join(strings)
    if (exchange := getattr(rdata, "exchange", None)) is not None:
        preference = getattr(rdata, "preference", 0)
        return f"{preference} {exchange.to_text(omit_final_dot=True)}".encode()
    if (target := getattr(rdata, "target", None)) is not None:
        return bytes(target.to_text(omit_final_dot=True), "ascii")
    return rdata.to_text().encode()
