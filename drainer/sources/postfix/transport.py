"""Where a Postfix instance sends the mail that it relays: transport(5), postconf(5).

A transport is ``NAME:NEXTHOP``. In brackets, the next hop is a host; without them, it
is a domain, and its MX records name the hosts.
"""

import re

from drainer.sources.protocol import Nexthop

SMTP, LMTP = "smtp", "lmtp"
_SERVICE = r"(?::(?P<port>[0-9]{1,5}|[a-z]+))?"
_NEXTHOP = re.compile(rf"(?:\[(?P<host>[^\]\s]+)\]|(?P<name>[^\s:\[\]]+)){_SERVICE}")
_SERVICES = {"smtp": 25, "smtps": 465, "submissions": 465, "submission": 587}
_SERVICES |= {"lmtp": 24}
_PROTOCOLS = {"smtp": SMTP, "relay": SMTP, "lmtp": LMTP}
"""Services of a usual master.cf that send to another server, and what they speak."""
_PORTS = {SMTP: 25, LMTP: 24}
_MAX_PORT = 65535


def parse_transport(text: str, default: str = "") -> Nexthop:
    """Return the next hop of a table's entry, or of ``relay_transport``.

    ``default`` is the transport that an entry without a name has. A Unix socket is
    ``unix:PATH``, with the path as it is written.
    """
    name, _, rest = (part.strip() for part in text.partition(":"))
    if not name:
        name, _, usual = (part.strip() for part in default.partition(":"))
        name, rest = name or "relay", rest or usual
    protocol = _PROTOCOLS.get(name)
    if protocol is None:
        return Nexthop(doubt=f"Postfix delivers it by the transport {text.strip()!r}")
    if protocol == LMTP:
        return _lmtp(rest)
    return _servers(rest, protocol) if rest else Nexthop()


def _lmtp(rest: str) -> Nexthop:
    """Return the next hop of lmtp(8): unix:PATH, inet:HOST[:PORT], or the latter."""
    if rest.startswith("unix:"):
        return Nexthop(rest, protocol=LMTP)
    if rest:
        return _servers(rest.removeprefix("inet:"), LMTP)
    return Nexthop(doubt="Postfix delivers it by LMTP to a host that has its name")


def _servers(rest: str, protocol: str) -> Nexthop:
    """Return the next hop to the servers of a list, in its order (smtp(8))."""
    found = [_server(each, protocol) for each in re.split(r"[\s,]+", rest)]
    doubt = next(filter(None, (each.doubt for each in found)), "")
    if not all(each.host for each in found):
        return Nexthop(doubt=doubt)
    tiers = [[(each.host, each.port)] for each in found]
    return Nexthop.to_servers(tiers, protocol, doubt)


def _server(rest: str, protocol: str) -> Nexthop:
    match = _NEXTHOP.fullmatch(rest)
    service = (match["port"] or "") if match else ""
    usual = _PORTS[protocol]
    port = int(service) if service.isdigit() else _SERVICES.get(service or "", usual)
    is_known = not service or service.isdigit() or service in _SERVICES
    if match is None or not is_known or not 0 < port <= _MAX_PORT:
        return Nexthop(doubt=f"drainer does not understand the next hop {rest!r}")
    host = match["host"] or match["name"]
    doubt = ""
    if protocol == LMTP and port == _PORTS[SMTP]:
        doubt = f"LMTP must not go to port 25 of {host} (RFC 2033 section 5)"
    elif protocol == SMTP and match["name"] and not service and "." in host:
        doubt = f"Postfix asks for the MX records of {host}, drainer does not"
    host = re.sub("^ipv6:", "", host, flags=re.IGNORECASE)
    return Nexthop(host, port, protocol, doubt)
