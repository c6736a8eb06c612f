"""Where a Postfix instance sends the mail that it relays: transport(5), postconf(5).

A transport is ``NAME:NEXTHOP``. In brackets, the next hop is a host; without them, it
is a domain, and its MX records name the hosts.
"""

import re
from typing import NamedTuple

_NEXTHOP = re.compile(
    r"\[(?P<host>[^\]\s]+)\](?::(?P<port>[0-9]{1,5}|smtp|smtps|submission))?"
    r"|(?P<name>[^\s:\[\]]+)(?::(?P<service>[0-9]{1,5}|smtp|smtps|submission))?"
)
_SERVICES = {"smtp": 25, "smtps": 465, "submission": 587}
_CLIENTS = ("smtp", "relay")
"""Services of a usual master.cf that speak SMTP to another host."""


class Nexthop(NamedTuple):
    """The next hop of a domain's mail."""

    #: A host name or address; '' = the hosts of the domain's MX records.
    host: str = ""
    port: int = 25
    #: What a person must look at, because drainer cannot use the transport as it is.
    doubt: str = ""


def parse_transport(text: str, default: str = "") -> Nexthop:
    """Return the next hop of a table's entry, or of ``relay_transport``.

    ``default`` is the transport that an entry without a name has.
    """
    name, colon, rest = text.strip().partition(":")
    if not colon:
        name, rest = text.strip(), ""
    name = name or default.partition(":")[0] or "relay"
    rest = rest.strip() or default.partition(":")[2].strip()
    if name not in _CLIENTS:
        return Nexthop(doubt=f"Postfix delivers it by the transport {text.strip()!r}")
    if not rest:
        return Nexthop()
    match = _NEXTHOP.fullmatch(rest)
    if match is None:
        return Nexthop(doubt=f"drainer does not understand the next hop {rest!r}")
    host = match["host"] or match["name"]
    port = match["port"] or match["service"] or "smtp"
    number = _SERVICES.get(port) or int(port)
    doubt = ""
    if match["host"] is None and match["service"] is None and "." in host:
        doubt = f"Postfix asks for the MX records of {host}, drainer does not"
    return Nexthop(host.removeprefix("IPv6:").removeprefix("ipv6:"), number, doubt)
