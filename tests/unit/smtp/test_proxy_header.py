"""PROXY headers, byte for byte as HAProxy's specification has them."""

import socket

import pytest

from drainer.smtp.proxy_header import header_of, make_header

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
V4 = (("192.0.2.1", 40000), ("192.0.2.25", 25))
V6 = (("2001:db8::1", 40000), ("fe80::25%eth0", 25))


@pytest.mark.parametrize(
    ("version", "ends", "header"),
    [
        ("v1", V4, b"PROXY TCP4 192.0.2.1 192.0.2.25 40000 25\r\n"),
        ("v1", V6, b"PROXY TCP6 2001:db8::1 fe80::25 40000 25\r\n"),
        ("v2", V4, SIGNATURE + bytes.fromhex("2111000cc0000201c00002199c400019")),
        (
            "v2",
            V6,
            SIGNATURE
            + bytes.fromhex("21210024")
            + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
            + socket.inet_pton(socket.AF_INET6, "fe80::25")
            + bytes.fromhex("9c400019"),
        ),
    ],
)
def test_a_header_has_both_ends_of_the_connection(
    version: str,
    ends: tuple[tuple[str, int], tuple[str, int]],
    header: bytes,
) -> None:
    """Version 1 as a line, version 2 as a block."""
    assert make_header(version, ends) == header


def test_a_connected_socket_gives_its_ends() -> None:
    """A Unix socket has none, and gets no header; 'off' sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as sock:
            ours = sock.getsockname()[1]
            line = f"PROXY TCP4 127.0.0.1 127.0.0.1 {ours} {port}\r\n"
            assert header_of(sock, "v1") == line.encode()
            assert header_of(sock, "off") == b""
    one, other = socket.socketpair()
    with one, other:
        assert header_of(one, "v1") == b""
