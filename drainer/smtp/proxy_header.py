"""The PROXY protocol: what a server behind a proxy wants to read first.

A server that has the protocol on reads no SMTP without this header. drainer names its
own end of the connection. The source is HAProxy's proxy-protocol.txt, sections 2.1
(version 1) and 2.2 (version 2).
"""

import ipaddress
import socket
import struct

V1, V2 = "v1", "v2"
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_PROXY = 0x21
"""Version 2, and addresses follow."""
_TCP = {4: 0x11, 6: 0x21}


def header_of(sock: socket.socket, version: str) -> bytes:
    """Return the header for a connected socket; b'' if ``version`` is 'off'.

    There is no proxy before a Unix socket: it gets none.
    """
    if version not in (V1, V2) or sock.family == socket.AF_UNIX:
        return b""
    source, destination = sock.getsockname()[:2], sock.getpeername()[:2]
    return make_header(version, (source, destination))


def make_header(version: str, ends: tuple[tuple[str, int], tuple[str, int]]) -> bytes:
    """Return the header of a TCP connection by its ends."""
    source, destination = (ipaddress.ip_address(h.partition("%")[0]) for h, _ in ends)
    ports = [port for _, port in ends]
    if version == V1:
        family = f"TCP{source.version}"
        return (
            f"PROXY {family} {source} {destination} {ports[0]} {ports[1]}\r\n".encode()
        )
    body = source.packed + destination.packed + struct.pack("!HH", *ports)
    return (
        _SIGNATURE + struct.pack("!BBH", _PROXY, _TCP[source.version], len(body)) + body
    )
