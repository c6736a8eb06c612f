"""Facts about a message's sender, as gathered, and what the operator trusts."""

import enum
import ipaddress
from collections.abc import Iterable, Mapping

from msgspec import Struct, field

from drainer.mail.mailbox import canonical_mailbox

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "224.0.0.0/3",
        # All of IPv6 except 2000::/3: local, site-local and multicast addresses, and
        # those that embed an IPv4 address (mapped, compatible, translated, NAT64).
        "::/3", "4000::/2", "8000::/1",
        # Teredo, benchmarks and other protocols of the IETF; 6to4.
        "2001::/23", "2002::/16",
    )
)  # fmt: skip


class Strength(enum.StrEnum):
    """How strong the result of one rule, or of all rules together, is."""

    PROVEN = "proven"
    WEAK = "weak"
    NOT = "not"
    #: DNS did not answer.
    LATER = "later"


class SpfTerm(Struct, frozen=True, kw_only=True):
    """One step on the way to an SPF result: a term of the record of ``domain``."""

    domain: str
    #: As published: ``include:spf.example.net``, ``ip4:192.0.2.0/24``.
    text: str
    #: all, include, redirect, a, mx, ptr, ip4, ip6 or exists.
    mechanism: str
    #: Length of the prefix that had to match; None for a term without addresses.
    prefix: int | None = None
    #: It has a macro, so the record may depend on the client.
    macro: bool = False
    #: DNS names of other organisations that decide whether it matches: the record is
    #: theirs (also behind an alias), or the host with the address that matched.
    foreign: tuple[str, ...] = ()


class SpfResult(Struct, frozen=True, kw_only=True):
    """The result for the MAIL FROM identity (RFC 7208 2.4)."""

    result: str
    #: Of a pass: the terms from the sender's own record down to the one that matched.
    path: tuple[SpfTerm, ...] = ()
    detail: str = ""


class DkimSignature(Struct, frozen=True, kw_only=True):
    """One DKIM signature, as far as possible as it was at reception."""

    domain: str
    #: The organisational domain of that domain.
    organisation: str
    #: PROVEN: valid. NOT: it fails, or is of a kind that proves nothing.
    state: Strength
    detail: str = ""
    #: It is of a kind that proves nothing, whether valid or not: ``l=``, ``t=y``.
    refused: bool = False
    #: The one mailbox that it vouches for, in canonical spelling: that of ``i=``, else
    #: the only address of the only From field; '' for none.
    mailbox: str = ""
    #: Mailboxes in the To and Cc fields that it covers, as mailbox_key returns them.
    addressees: frozenset[str] = frozenset()


class DmarcPolicy(Struct, frozen=True, kw_only=True):
    """The author's domain, and the policy that it publishes."""

    #: '' unless there is exactly one author.
    domain: str = ""
    organisation: str = ""
    published: bool = False
    strict_dkim: bool = False
    strict_spf: bool = False
    #: DNS did not answer: the policy may be strict.
    later: bool = False
    detail: str = ""


class AuthResult(Struct, frozen=True, kw_only=True):
    """A positive result that a trusted Authentication-Results field states."""

    #: spf, dkim or dmarc.
    method: str
    #: The domain that it is about: smtp.mailfrom, header.d or header.from.
    domain: str
    organisation: str
    authserv_id: str
    #: The canonical mailbox, if it has a local part: smtp.mailfrom or header.i.
    mailbox: str = ""


class Reachability(enum.StrEnum):
    """Whether mail can be sent to a domain at all, as DNS says now."""

    YES = "yes"
    NXDOMAIN = "nxdomain"
    NULL_MX = "null-mx"
    NO_ADDRESS = "no-address"
    OURS = "private-or-ours"
    LATER = "later"


class SenderFacts(Struct, frozen=True, kw_only=True):
    """What was found about one message's sender."""

    reverse_path: str = ""
    #: The sender's domain in ASCII; '' if it cannot be in DNS.
    domain: str = ""
    organisation: str = ""
    #: The only address of the only From field, in canonical spelling; '' for none.
    author: str = ""
    #: Address of the client, from the spool's own record; '' if unknown.
    client: str = ""
    login: str = ""
    spf: SpfResult | None = None
    signatures: tuple[DkimSignature, ...] = ()
    dmarc: DmarcPolicy = field(default_factory=DmarcPolicy)
    claims: tuple[AuthResult, ...] = ()
    reach: Reachability = Reachability.YES
    #: Why something was not checked, by rule: {"V4": "larger than 32 MB"}.
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def sender(self) -> str:
        """The reverse-path in canonical spelling; '' without a DNS name."""
        return canonical_mailbox(self.reverse_path)


class TrustSettings(Struct, frozen=True, kw_only=True):
    """What the operator configured about senders."""

    #: Domains that the backup accepts mail for, in ASCII; their subdomains are
    #: included.
    relay_domains: frozenset[str] = frozenset()
    trusted_networks: tuple[Network, ...] = ()
    #: Providers: their SPF records prove senders of other organisations that include
    #: them.
    trusted_spf_domains: frozenset[str] = frozenset()


def parse_address(text: str) -> Address | None:
    """Return a client's address as spools write it; None for anything else.

    ``IPv6:`` in front and brackets around it are accepted, a zone (``%eth0``) is not. A
    mapped IPv4 address is returned as IPv4.
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
    """Return whether an address is private, or not that of a single host.

    An IPv6 address that embeds an IPv4 address is private, whatever it embeds. The
    networks for documentation count as public: no route leads to them.
    """
    return any(
        address in network for network in _PRIVATE if network.version == address.version
    )


def is_public(text: str) -> bool:
    """Return whether an address from DNS may be that of a mail server elsewhere."""
    try:
        return not is_private(ipaddress.ip_address(text))
    except ValueError:
        return False


def is_within(domain: str, domains: Iterable[str]) -> bool:
    """Return whether a domain is one of these or below one; all in lower case."""
    return any(domain == each or domain.endswith(f".{each}") for each in domains)
