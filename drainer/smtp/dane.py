"""DANE: a server's certificate is the one that DNS names, proven by DNSSEC (RFC 7672).

drainer believes the resolver that it asks: an answer counts if the resolver says that
it has validated it (the AD bit). So that resolver must validate, and the way to it must
be safe. An answer is kept until its TTL ends, so that few sessions wait for DNS.
"""

import hashlib
import logging
import ssl
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct

from drainer.policy.bounce.facts import parse_address
from drainer.smtp.certificate import is_issued_by, public_key

if TYPE_CHECKING:
    import dns.asyncresolver
    import dns.resolver

_TRUST_ANCHOR, _END_ENTITY = 2, 3
"""The certificate usages that count; those with public CAs do not (RFC 7672 3.1.3)."""
_WHOLE, _KEY = 0, 1
_DIGESTS: Mapping[int, Callable[[bytes], bytes]] = {
    0: bytes,
    1: lambda data: hashlib.sha256(data).digest(),
    2: lambda data: hashlib.sha512(data).digest(),
}
MAX_RECORDS = 100
LEAST, MOST, ABSENT = 5.0, 3600.0, 300.0
"""Seconds for which an answer is kept; the last, if a server has no DANE."""

_log = logging.getLogger(__name__)


class DaneSettings(Struct, frozen=True, kw_only=True):
    """Whom drainer asks for TLSA records; no addresses = the resolvers of this host."""

    #: Whether a server without records that count gets nothing.
    required: bool = False

    addresses: tuple[str, ...] = ()
    port: int = 53
    #: Seconds for one question.
    timeout: float = 5.0


class DaneFailure(Exception):
    """A server has no TLSA record that counts, or its certificate has none of them."""


class DnsSilence(DaneFailure):
    """DNS does not answer now."""


class TlsaSilence(DnsSilence):
    """Nor for TLSA records that could be there: nothing may go out (RFC 7672 2.1.2)."""


class TlsaRecord(NamedTuple):
    """A record that counts (RFC 6698 2.1)."""

    usage: int
    selector: int
    matching: int
    data: bytes

    def matches(self, der: bytes) -> bool:
        """Return whether it names this certificate, or its key."""
        found = der if self.selector == _WHOLE else public_key(der)
        return bool(found) and _DIGESTS[self.matching](found) == self.data


class Tlsa(NamedTuple):
    """The records of a server, and the names that its certificate may have.

    Without any record that counts, the server has TLS with any certificate.
    """

    records: tuple[TlsaRecord, ...]
    names: tuple[str, ...]
    #: Seconds for which they are valid.
    ttl: float = ABSENT

    def check(self, chain: Sequence[bytes]) -> None:
        """Raise DaneFailure unless a record names this chain (DER, the leaf first).

        A certificate of the server itself counts whatever its names and dates are (RFC
        7672 3.1.1); one of its CA vouches for a name, and for now (3.1.2).
        """
        if not self.records:
            return
        for record in self.records:
            if record.usage == _END_ENTITY and record.matches(chain[0]):
                return
            if record.usage == _TRUST_ANCHOR:
                for anchor in self._anchors(record, chain):
                    if is_issued_by(chain, anchor, self.names):
                        return
        raise DaneFailure("its certificate is none that its TLSA records name")

    @staticmethod
    def _anchors(record: TlsaRecord, chain: Sequence[bytes]) -> Iterable[bytes]:
        yield from filter(record.matches, chain[1:])
        if (record.selector, record.matching) == (_WHOLE, 0):
            yield record.data  # then the server need not send it


class Dane:
    """The TLSA records of the servers of a route, each asked for once in its TTL."""

    def __init__(self, settings: DaneSettings) -> None:
        """Start without any answer."""
        self.settings = settings
        #: By server: until when an answer is valid, and the answer.
        self._cache: dict[tuple[str, int], tuple[float, Tlsa | DaneFailure]] = {}

    async def find(self, host: str, port: int) -> Tlsa | None:
        """Return the records of a server; None = it has no DANE.

        Nothing is asked about an address, or about a name of this network only. While
        DNS does not answer, the last answer stays. Raises TlsaSilence if there is none
        and the zone is proven, and DaneFailure if DANE is required and does not count.
        """
        server = host.rstrip(".").lower(), port
        until, answer = self._cache.get(server, (0.0, None))
        if answer is None or until <= time.monotonic():
            if answer is not None:  # other sessions do not wait meanwhile
                self._keep(server, answer, LEAST)
            answer, seconds = await self._ask(server, answer)
            self._keep(server, answer, seconds)
        if isinstance(answer, Tlsa):
            return answer
        if self.settings.required or isinstance(answer, TlsaSilence):
            raise type(answer)(*answer.args)
        return None

    async def _ask(
        self, server: tuple[str, int], last: Tlsa | DaneFailure | None
    ) -> tuple[Tlsa | DaneFailure, float]:
        """Return an answer, and for how many seconds it is valid."""
        try:
            found = await find_tlsa(self.settings, *server)
        except DnsSilence as silence:
            if isinstance(last, Tlsa):
                return last, LEAST
            return silence, LEAST if isinstance(silence, TlsaSilence) else ABSENT
        except DaneFailure as failure:
            return failure, ABSENT
        return found, found.ttl

    def _keep(
        self, server: tuple[str, int], answer: Tlsa | DaneFailure, seconds: float
    ) -> None:
        kept = min(MOST, max(LEAST, seconds))
        self._cache[server] = time.monotonic() + kept, answer


async def find_tlsa(settings: DaneSettings, name: str, port: int) -> Tlsa:
    """Ask for the TLSA records of a server; raise DaneFailure if none counts.

    ``name`` is in lower case, without a final dot.

    For an alias that DNSSEC proves, those of its target go first (RFC 7672 2.2.2).
    Unless DANE is required, DNSSEC must prove the server's address, too: otherwise
    nothing more is asked. Many servers of zones without DNSSEC fail at such questions.
    """
    if parse_address(name) or not (settings.required or "." in name):
        raise DaneFailure(f"{name} is not a full host name, so it has no TLSA record")
    resolver = _resolver(settings)
    target = await _target(resolver, name, required=settings.required)
    failure = DaneFailure(f"{name} has no TLSA record")
    for base in dict.fromkeys((target, name)):
        try:
            records, ttl = await _records(resolver, f"_{port}._tcp.{base}")
        except TlsaSilence:
            raise
        except DaneFailure as error:
            failure = error
        else:
            if records or not settings.required:
                return Tlsa(records, (base, name), ttl)
            words = f"_{port}._tcp.{base} has no TLSA record that SMTP uses"
            failure = DaneFailure(f"{words} (usage 2 or 3)")
    raise failure


def _resolver(settings: DaneSettings) -> "dns.asyncresolver.Resolver":
    import dns.asyncresolver  # noqa: PLC0415 - few routes ask for it
    import dns.flags  # noqa: PLC0415

    try:
        resolver = dns.asyncresolver.Resolver(configure=not settings.addresses)
        if settings.addresses:
            resolver.nameservers = list(settings.addresses)
            resolver.port = settings.port
    except (dns.resolver.NoResolverConfiguration, ValueError) as error:
        message = f"no DNS server can be asked for TLSA records: {error}"
        raise DaneFailure(message) from None
    resolver.lifetime = settings.timeout
    resolver.set_flags(dns.flags.RD | dns.flags.AD)  # RFC 6840 5.7
    return resolver


async def _ask(
    resolver: "dns.asyncresolver.Resolver", name: str, kind: str
) -> "dns.resolver.Answer":
    """Return an answer that DNSSEC proves; it may have no records.

    Raises DaneFailure for any other, DnsSilence if there is none.
    """
    import dns.exception  # noqa: PLC0415
    import dns.flags  # noqa: PLC0415
    import dns.resolver  # noqa: PLC0415

    try:
        found = await resolver.resolve(
            f"{name}.", kind, search=False, raise_on_no_answer=False
        )
    except dns.resolver.NXDOMAIN:
        raise DaneFailure(f"{name} has no {kind} record") from None
    except (dns.exception.DNSException, OSError, ValueError, EOFError) as error:
        message = f"DNS does not answer for the {kind} record of {name}: {error}"
        raise DnsSilence(message) from None
    if not found.response.flags & dns.flags.AD:
        message = f"the resolver does not prove the {kind} record of {name} by DNSSEC"
        raise DaneFailure(message)
    return found


async def _target(
    resolver: "dns.asyncresolver.Resolver", name: str, *, required: bool
) -> str:
    """Return what a host is an alias of, if DNSSEC proves it.

    Otherwise it is the host; DaneFailure unless DANE is ``required``. If DNS does not
    answer, the address of the host comes from elsewhere, and nothing says that its zone
    has DNSSEC.
    """
    try:
        found = await _ask(resolver, name, "A")
    except DaneFailure as error:
        if required:
            return name
        if isinstance(error, DnsSilence):
            _log.warning(f"drainer cannot ask for DANE of {name}: {error}")
        raise
    return found.canonical_name.to_text(omit_final_dot=True).lower()


async def _records(
    resolver: "dns.asyncresolver.Resolver", name: str
) -> tuple[tuple[TlsaRecord, ...], float]:
    """Return the records that count, and their TTL; DaneFailure if there is none."""
    try:
        found = (await _ask(resolver, name, "TLSA")).rrset
    except DnsSilence as silence:
        raise TlsaSilence(*silence.args) from None
    if not found:
        raise DaneFailure(f"{name} has no TLSA record")
    records = (
        TlsaRecord(each.usage, each.selector, each.mtype, each.cert) for each in found
    )
    usable = tuple(each for each in islice(records, MAX_RECORDS) if _counts(each))
    return usable, float(found.ttl)


def _counts(record: TlsaRecord) -> bool:
    sizes = {1: hashlib.sha256().digest_size, 2: hashlib.sha512().digest_size}
    return (
        record.usage in (_TRUST_ANCHOR, _END_ENTITY)
        and record.selector in (_WHOLE, _KEY)
        and record.matching in _DIGESTS
        and len(record.data) == sizes.get(record.matching, len(record.data))
    )


def chain_of(session: Any) -> list[bytes]:  # noqa: ANN401 - uvloop's has no type
    """Return the certificates that the peer sent (DER), the leaf first.

    ``session`` is an ssl.SSLObject. Python 3.13 has a method for this; before, only the
    object inside has one.
    """
    if hasattr(session, "get_unverified_chain"):
        return list(session.get_unverified_chain())
    inner = session._sslobj  # noqa: SLF001
    return [
        ssl.PEM_cert_to_DER_cert(each.public_bytes())
        for each in inner.get_unverified_chain() or ()
    ]
