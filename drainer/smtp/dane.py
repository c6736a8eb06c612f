"""DANE: a server's certificate is the one that DNS names, proven by DNSSEC (RFC 7672).

drainer believes the resolver that it asks: an answer counts if the resolver says that
it has validated it (the AD bit). So that resolver must validate, and the way to it must
be safe.
"""

import hashlib
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct

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


class DaneSettings(Struct, frozen=True, kw_only=True):
    """Whom drainer asks for TLSA records; no addresses = the resolvers of this host."""

    addresses: tuple[str, ...] = ()
    port: int = 53
    #: Seconds for one question.
    timeout: float = 5.0


class DaneFailure(Exception):
    """A server has no TLSA record that counts, or its certificate has none of them."""


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
    """The records of a server, and the names that its certificate may have."""

    records: tuple[TlsaRecord, ...]
    names: tuple[str, ...]

    def check(self, chain: Sequence[bytes]) -> None:
        """Raise DaneFailure unless a record names this chain (DER, the leaf first).

        A certificate of the server itself counts whatever its names and dates are (RFC
        7672 3.1.1); one of its CA vouches for a name, and for now (3.1.2).
        """
        for record in self.records:
            if record.usage == _END_ENTITY and record.matches(chain[0]):
                return
            if record.usage == _TRUST_ANCHOR:
                for anchor in self._anchors(record, chain):
                    if is_issued_by(chain, anchor, self.names):
                        return
        message = "its certificate is none that its TLSA records name"
        raise DaneFailure(message)

    @staticmethod
    def _anchors(record: TlsaRecord, chain: Sequence[bytes]) -> Iterable[bytes]:
        yield from filter(record.matches, chain[1:])
        if (record.selector, record.matching) == (_WHOLE, 0):
            yield record.data  # then the server need not send it


async def find_tlsa(settings: DaneSettings, host: str, port: int) -> Tlsa:
    """Return the TLSA records of a server; raise DaneFailure if none counts.

    For an alias that DNSSEC proves, those of its target go first (RFC 7672 2.2.2).
    """
    name = host.rstrip(".").lower()
    resolver = _resolver(settings)
    failure = DaneFailure(f"{name} has no TLSA record")
    for base in dict.fromkeys((await _target(resolver, name), name)):
        try:
            records = await _records(resolver, f"_{port}._tcp.{base}")
        except DaneFailure as error:
            failure = error
        else:
            return Tlsa(records, (base, name))
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

    Raises DaneFailure for any other.
    """
    import dns.exception  # noqa: PLC0415
    import dns.flags  # noqa: PLC0415
    import dns.resolver  # noqa: PLC0415

    try:
        found = await resolver.resolve(
            f"{name}.", kind, search=False, raise_on_no_answer=False
        )
    except dns.resolver.NXDOMAIN:
        message = f"{name} has no {kind} record"
        raise DaneFailure(message) from None
    except (dns.exception.DNSException, OSError, ValueError, EOFError) as error:
        message = f"DNS does not answer for the {kind} record of {name}: {error}"
        raise DaneFailure(message) from None
    if not found.response.flags & dns.flags.AD:
        message = f"the resolver does not prove the {kind} record of {name} by DNSSEC"
        raise DaneFailure(message)
    return found


async def _target(resolver: "dns.asyncresolver.Resolver", name: str) -> str:
    """Return what a host is an alias of, if DNSSEC proves it; otherwise the host."""
    try:
        found = await _ask(resolver, name, "A")
    except DaneFailure:
        return name
    return found.canonical_name.to_text(omit_final_dot=True).lower()


async def _records(
    resolver: "dns.asyncresolver.Resolver", name: str
) -> tuple[TlsaRecord, ...]:
    found = (await _ask(resolver, name, "TLSA")).rrset or ()
    records = [
        TlsaRecord(each.usage, each.selector, each.mtype, each.cert) for each in found
    ]
    usable = tuple(each for each in records[:MAX_RECORDS] if _counts(each))
    if not usable:
        which = "that SMTP uses (usage 2 or 3)" if records else ""
        message = f"{name} has no TLSA record {which}".rstrip()
        raise DaneFailure(message)
    return usable


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
