"""Facts about a message's sender, as the edges find them; what the operator trusts."""

import enum
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import field

from drainer.mail.mailbox import canonical_mailbox
from drainer.runtime.values import dataclass

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "224.0.0.0/3",
        # All of IPv6 but 2000::/3; so local, site-local and multicast addresses, and
        # those that embed an IPv4 address: mapped, compatible, translated, NAT64.
        "::/3", "4000::/2", "8000::/1",
        # Teredo, benchmarks and other protocols of the IETF; 6to4.
        "2001::/23", "2002::/16",
    )
)  # fmt: skip


class Strength(enum.StrEnum):
    """What a rule, or all of them together, found."""

    PROVEN = "proven"
    WEAK = "weak"
    NOT = "not"
    #: DNS did not answer.
    LATER = "later"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpfTerm:
    """One step on the way to an SPF result: a term of the record of ``domain``."""

    domain: str
    #: As published: ``include:spf.example.net``, ``ip4:192.0.2.0/24``.
    text: str
    #: all, include, redirect, a, mx, ptr, ip4, ip6 or exists.
    mechanism: str
    #: Length of the prefix that had to match; None for a term without addresses.
    prefix: int | None = None
    #: It has a macro, so that the record may depend on the client.
    macro: bool = False
    #: DNS names of other organisations that decide whether it matches: the record is
    #: theirs (also behind an alias), or the host whose address matched.
    foreign: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SpfResult:
    """The result for the MAIL FROM identity (RFC 7208 2.4)."""

    result: str
    #: Of a pass, from the sender's own record down to the term that matched.
    path: tuple[SpfTerm, ...] = ()
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DkimSignature:
    """One DKIM signature, as it was at reception as far as that can be told."""

    domain: str
    #: The organisational domain of that.
    organisation: str
    #: PROVEN = valid; NOT = it fails, or is of a kind that proves nothing.
    state: Strength
    detail: str = ""
    #: It is of a kind that proves nothing, whether valid or not: ``l=``, ``t=y``.
    refused: bool = False
    #: The one mailbox that it vouches for, in canonical spelling: that of ``i=``, else
    #: the only address of the only From field; '' for none.
    mailbox: str = ""
    #: Mailboxes in the To and Cc fields that it covers, as mailbox_key has them.
    addressees: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class DmarcPolicy:
    """The author's domain, and the policy that it publishes."""

    #: '' when there is not exactly one author.
    domain: str = ""
    organisation: str = ""
    published: bool = False
    strict_dkim: bool = False
    strict_spf: bool = False
    #: DNS did not answer: it may be strict.
    later: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthResult:
    """A positive result that a trusted Authentication-Results field states."""

    #: spf, dkim or dmarc.
    method: str
    #: Whom it is about: smtp.mailfrom, header.d or header.from; a domain.
    domain: str
    organisation: str
    authserv_id: str
    #: The mailbox, canonical, if it has a local part: smtp.mailfrom or header.i.
    mailbox: str = ""


class Reachability(enum.StrEnum):
    """Whether mail can be sent to a domain at all, as DNS says now."""

    YES = "yes"
    NXDOMAIN = "nxdomain"
    NULL_MX = "null-mx"
    NO_ADDRESS = "no-address"
    OURS = "private-or-ours"
    LATER = "later"


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderFacts:
    """What was found about one message's sender."""

    reverse_path: str = ""
    #: The sender's domain in ASCII; '' when it has none that DNS could know.
    domain: str = ""
    organisation: str = ""
    #: The only address of the only From field, in canonical spelling; '' for none.
    author: str = ""
    #: Address of the client, from the spool's own record; '' = unknown.
    client: str = ""
    login: str = ""
    spf: SpfResult | None = None
    signatures: tuple[DkimSignature, ...] = ()
    dmarc: DmarcPolicy = field(default_factory=DmarcPolicy)
    claims: tuple[AuthResult, ...] = ()
    reach: Reachability = Reachability.YES
    #: Why something was not looked at, by rule: {"V4": "larger than 32 MB"}.
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def sender(self) -> str:
        """The reverse-path in canonical spelling; '' without a DNS name."""
        return canonical_mailbox(self.reverse_path)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustSettings:
    """What the operator says."""

    #: Domains that the backup takes mail for, in ASCII; their subdomains are meant too.
    relay_domains: frozenset[str] = frozenset()
    trusted_networks: tuple[Network, ...] = ()
    #: Whose SPF records prove a sender of another organisation that includes them.
    trusted_spf_domains: frozenset[str] = frozenset()


def parse_address(text: str) -> Address | None:
    """Return a client's address as spools write it; None for anything else.

    ``IPv6:`` and brackets may stand around it; a mapped IPv4 address is that IPv4
    address, and a zone (``%eth0``) makes it none.
    """
    bare = text.strip().strip("[]")
    if bare[:5].lower() == "ipv6:":
        bare = bare[5:]
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def is_private(address: Address) -> bool:
    """Whether an address is behind a border, or is one of no single host.

    An IPv6 address that embeds an IPv4 address is private, whatever it embeds. The
    networks for documentation count as public: no route leads there.
    """
    return any(
        address in network for network in _PRIVATE if network.version == address.version
    )


def is_public(text: str) -> bool:
    """Whether the address in a DNS answer may be that of a mail server elsewhere."""
    try:
        return not is_private(ipaddress.ip_address(text))
    except ValueError:
        return False


def is_within(domain: str, domains: Iterable[str]) -> bool:
    """Whether a domain is one of these, or below one; lower case throughout."""
    return any(domain == each or domain.endswith(f".{each}") for each in domains)
