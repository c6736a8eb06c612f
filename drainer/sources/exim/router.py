"""Where Exim's manualroute sends mail: its rules, host lists and transports.

The sources are three chapters of Exim's specification: "Domain, host, address, and
local part lists", "The manualroute router", "The smtp transport".
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from drainer.sources.protocol import Nexthop

LMTP = "lmtp"
_PORTS = {"smtp": 25, "smtps": 465, LMTP: 24}
"""The usual port of each ``protocol`` of the smtp transport."""
_MAX_PORT = 65535
_SECURITY = (
    "hosts_require_tls",
    "hosts_require_auth",
    "hosts_require_dane",
    "tls_verify_hosts",
)
"""Options of a transport that a route has to have in its own way."""
_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_ADDRESS = r"[0-9A-Fa-f:]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*"
_HOST = re.compile(
    rf"(?P<bare>{_ADDRESS})|(?:\[(?P<address>[0-9.]+|{_ADDRESS})\]"
    r"|(?P<name>[A-Za-z0-9_.-]+))(?::(?P<port>[0-9]{1,5}))?"
)

Options = Mapping[str, str]
"""The options of a router or a transport, as ``exim -bP`` prints them."""


class RouteRule(NamedTuple):
    """A rule of ``route_list``; the value of ``route_data`` has no pattern."""

    pattern: str = ""
    hosts: str = ""
    options: tuple[str, ...] = ()


def split_list(text: str, separator: str = ":") -> list[str]:
    """Return the items of a list; a doubled separator is part of an item."""
    text = text.strip()
    if match := re.match(r"<([^\w\s])", text):
        separator, text = match[1], text[2:]
    parts = text.replace(2 * separator, "\0").split(separator)
    items = (part.replace("\0", separator).strip() for part in parts)
    return [item for item in items if item]


def parse_route_list(text: str) -> Iterator[RouteRule]:
    """Yield the rules of ``route_list``."""
    for rule in split_list(text, ";"):
        pattern, *rest = _tokens(rule)
        yield RouteRule(pattern, *_hosts_and_options(rest))


def expand_value(rule: RouteRule) -> str:
    """Return the hosts of a rule, with ``$value`` as the lookup that its pattern is."""
    match = re.fullmatch(r"(\w[^;\s]*)\s*;\s*(/\S+)", rule.pattern)
    if match is None:
        return rule.hosts
    lookup = f"${{lookup{{$domain}}{match[1]}{{{match[2]}}}}}"
    return re.sub(r"\$\{value\}|\$value\b", lambda _: lookup, rule.hosts)


def parse_route_data(text: str) -> RouteRule:
    """Return the rule that the value of ``route_data`` is."""
    return RouteRule("", *_hosts_and_options(_tokens(text)))


def _hosts_and_options(tokens: list[str]) -> tuple[str, tuple[str, ...]]:
    return (tokens[0], tuple(tokens[1:])) if tokens else ("", ())


def _tokens(text: str) -> list[str]:
    found = (match.groups() for match in _TOKEN.finditer(text))
    return [word or re.sub(r"\\(.)", r"\1", quoted or "") for quoted, word in found]


def nexthop_of(hosts: str, transport: Options, *, shares: bool) -> Nexthop:
    """Return the next hop for a host list by a transport.

    ``shares``: Exim takes the hosts between two ``+`` in any order.
    """
    driver = transport.get("driver")
    if driver == LMTP and transport.get("socket"):
        return Nexthop(f"unix:{transport['socket']}", protocol=LMTP)
    if driver != "smtp":
        return Nexthop(doubt=f"Exim delivers it by a transport of the driver {driver}")
    own = transport.get("hosts", "")
    if own and (not hosts or transport.get("hosts_override")):
        hosts = own
    protocol = transport.get("protocol") or "smtp"
    usual = transport.get("port", "")
    port = int(usual) if usual.isdigit() else _PORTS.get(protocol, 0)
    try:
        shares = shares or "hosts_randomize" in transport
        tiers = _tiers(hosts, port, shares=shares)
    except ValueError as error:
        return Nexthop(doubt=str(error))
    wants = [name for name in _SECURITY if transport.get(name)]
    doubt = f"the transport of Exim has {', '.join(wants)}" if wants else ""
    return Nexthop.to_servers(tiers, LMTP if protocol == LMTP else "smtp", doubt)


def _tiers(hosts: str, usual: int, *, shares: bool) -> list[list[tuple[str, int]]]:
    """Return the hosts with their ports, equal ones together; or raise ValueError."""
    tiers: list[list[tuple[str, int]]] = []
    is_new = True
    for item in split_list(hosts):
        if item == "+":
            is_new = True
            continue
        match = _HOST.fullmatch(item)
        port = int(match["port"] or usual) if match else 0
        if match is None or not 0 < port <= _MAX_PORT:
            raise ValueError(f"drainer does not understand the host {item!r} of Exim")
        if is_new:
            tiers.append([])
        tiers[-1].append((match["bare"] or match["address"] or match["name"], port))
        is_new = not shares
    if not tiers:
        raise ValueError("Exim finds no host for it in its configuration")
    return tiers
