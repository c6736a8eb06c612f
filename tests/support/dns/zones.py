"""A real DNS server on loopback, over UDP and TCP, that serves what a test says."""

import socketserver
import struct
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.rrset

from drainer.bounce.evidence.request import DnsServers

TIMEOUT = "TIMEOUT"
"""As a record's type: the question gets no reply."""
SERVFAIL = "SERVFAIL"

Records = Iterable[tuple[str, str | bytes]]


@dataclass(slots=True)
class Zone:
    """Names with their records; the type ANY stands for all types."""

    records: dict[str, list[tuple[str, str | bytes]]] = field(default_factory=dict)
    #: What was asked, in order: ("example.com", "TXT").
    asked: list[tuple[str, str]] = field(default_factory=list)
    #: A name outside of the zone that begins so is not answered.
    silent: str = ""
    #: Seconds for which each answer is valid.
    ttl: int = 300
    #: Whether the answers say that DNSSEC proves them.
    proven: bool = False

    def add(self, name: str, kind: str, value: str | bytes = "") -> Self:
        """Add one record."""
        self.records.setdefault(_key(name), []).append((kind, value))
        return self

    def reply(self, query: dns.message.Message) -> dns.message.Message | None:
        """Return what a resolver would answer; None for silence."""
        question = query.question[0]
        kind = dns.rdatatype.to_text(question.rdtype)
        kind = "SPF" if kind == "TYPE99" else kind
        name = b".".join(question.name.labels).decode("latin-1").rstrip(".").lower()
        self.asked.append((name, kind))
        response = dns.message.make_response(query, recursion_available=True)
        if self.proven:
            response.flags |= dns.flags.AD
        seen: set[str] = set()
        while name not in seen:
            seen.add(name)
            records = self.records.get(name)
            if records is None:
                if self.silent and name.startswith(self.silent):
                    return None
                response.set_rcode(dns.rcode.NXDOMAIN)
                return response
            owner = dns.name.Name((*name.encode("latin-1").split(b"."), b""))
            found = [value for each, value in records if each == kind]
            kinds = [each for each, _ in records]
            if (not found and TIMEOUT in kinds) or f"{kind}-{TIMEOUT}" in kinds:
                return None
            if not found and SERVFAIL in kinds:
                response.set_rcode(dns.rcode.SERVFAIL)
                return response
            if found:
                response.answer.append(_rrset(owner, kind, found, self.ttl))
                return response
            alias = next((value for each, value in records if each == "CNAME"), None)
            if alias is None:
                return response
            response.answer.append(_rrset(owner, "CNAME", [alias], self.ttl))
            name = _key(str(alias))
        return response


def _key(name: str) -> str:
    return name.rstrip(".").lower()


def _rrset(
    owner: dns.name.Name, kind: str, values: Sequence[str | bytes], ttl: int
) -> dns.rrset.RRset:
    number = dns.rdatatype.SPF if kind == "SPF" else dns.rdatatype.from_text(kind)
    return dns.rrset.from_rdata_list(
        owner, ttl, [_rdata(number, value) for value in values]
    )


def _rdata(kind: dns.rdatatype.RdataType, value: str | bytes) -> dns.rdata.Rdata:
    if kind in (dns.rdatatype.TXT, dns.rdatatype.SPF):
        data = value.encode() if isinstance(value, str) else value
        strings = [data[n : n + 255] for n in range(0, len(data), 255)] or [b""]
        return dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, kind, strings)
    return dns.rdata.from_text(dns.rdataclass.IN, kind, _absolute(kind, str(value)))


def _absolute(kind: dns.rdatatype.RdataType, value: str) -> str:
    kinds = dns.rdatatype
    names = (kinds.MX, kinds.PTR, kinds.CNAME, kinds.NS)
    return f"{value.rstrip('.')}." if kind in names else value


class _Datagrams(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, socket = self.request
        server: Any = self.server
        response = server.zone.reply(dns.message.from_wire(data))
        if response is None:
            return
        try:
            wire = response.to_wire(max_size=1232)
        except dns.exception.TooBig:
            response.flags |= dns.flags.TC
            response.answer.clear()
            wire = response.to_wire()
        socket.sendto(wire, self.client_address)


class _Streams(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        server: Any = self.server
        head = self.request.recv(2)
        while len(head) == 2:
            data = self.request.recv(struct.unpack(">H", head)[0])
            response = server.zone.reply(dns.message.from_wire(data))
            if response is None:
                return
            wire = response.to_wire(max_size=65535)
            self.request.sendall(struct.pack(">H", len(wire)) + wire)
            head = self.request.recv(2)


class _UDP(socketserver.ThreadingUDPServer):
    daemon_threads = True


class _TCP(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@contextmanager
def _bound() -> Iterator[tuple[_UDP, _TCP]]:
    """Bind both to one port, which another program may have for one of them."""
    for _ in range(20):
        with _UDP(("127.0.0.1", 0), _Datagrams) as udp:
            try:
                tcp = _TCP(udp.server_address, _Streams)
            except OSError:
                continue
            with tcp:
                yield udp, tcp
                return
    raise OSError("no port is free")


@contextmanager
def serving(zone: Zone, *, timeout: float = 2.0) -> Iterator[DnsServers]:
    """Serve a zone while the context lasts; it may be changed meanwhile."""
    with _bound() as (udp, tcp):
        port = udp.server_address[1]
        for server in (udp, tcp):
            server.zone = zone  # type: ignore[union-attr]
            threading.Thread(
                target=server.serve_forever,
                kwargs={"poll_interval": 0.02},
                daemon=True,
            ).start()
        try:
            yield DnsServers(
                addresses=("127.0.0.1",), port=port, timeout=timeout, budget=60
            )
        finally:
            udp.shutdown()
            tcp.shutdown()


def zone_of(names: Mapping[str, Records]) -> Zone:
    """Return a zone of names and their records."""
    zone = Zone()
    for name, records in names.items():
        for kind, value in records:
            zone.add(name, kind, value)
    return zone
