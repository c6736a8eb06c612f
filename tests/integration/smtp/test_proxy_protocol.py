"""The PROXY protocol, with a real Postfix that wants it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.command.runner import Bench, call
from tests.support.mta.postfix import free_port, instance_directory, missing_reason
from tests.support.mta.roles import Primary, primary
from tests.support.smtp_peer.peer import PeerThread
from tests.support.tls.certificates import self_signed

BIND = "127.0.0.77"


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    """Give two ports for servers that want the header; one also wants TLS."""
    return {"plain": free_port(), "implicit": free_port()}


@pytest.fixture(scope="module")
def behind_proxy(
    tmp_path_factory: pytest.TempPathFactory, ports: dict[str, int]
) -> Iterator[Primary]:
    """Run a Postfix that takes the address of a client from the header."""
    if reason := missing_reason():
        pytest.skip(reason)
    made = self_signed(tmp_path_factory.mktemp("tls"))
    with instance_directory() as folder:
        server = primary(folder)
        server.set(
            smtpd_tls_cert_file=str(made.certificate),
            smtpd_tls_key_file=str(made.key),
            smtpd_tls_security_level="may",
        )
        proxied = "smtpd -o smtpd_upstream_proxy_protocol=haproxy"
        implicit = f"{proxied} -o smtpd_tls_wrappermode=yes"
        server.add_master(
            f"127.0.0.1:{ports['plain']} inet n - n - - {proxied}\n"
            f"127.0.0.1:{ports['implicit']} inet n - n - - {implicit}\n"
        )
        with server:
            yield server


@pytest.mark.parametrize(
    ("version", "tls"), [("v1", "required"), ("v2", "off"), ("v2", "implicit")]
)
def test_postfix_takes_mail_behind_the_header(
    tmp_path: Path,
    behind_proxy: Primary,
    ports: dict[str, int],
    version: str,
    tls: str,
) -> None:
    """The header goes before TLS; it names our own address."""
    bench = Bench(tmp_path, ports["implicit" if tls == "implicit" else "plain"])
    keys = {"proxy_protocol": version, "tls": tls, "bind": BIND}
    bench.configure(primary=keys, health={"reject": ""})
    bench.add("a@example.org")
    known = len(behind_proxy.received())
    assert bench.drain(check=True).code == 0
    (received,) = behind_proxy.wait_received(known + 1)[known:]
    assert BIND.encode() in received.trace


def test_a_primary_that_expects_no_header_is_named(
    tmp_path: Path, peer: Callable[..., PeerThread]
) -> None:
    """Its refusal of the header would look like one of EHLO."""
    bench = Bench(tmp_path, peer(lenient=True).port)
    bench.configure(primary={"proxy_protocol": "v1"})
    result = call("check", "--config", bench.config, "--json")
    assert result.code == 3
    (failed,) = (s for s in result.json["stages"] if s["verdict"] == "fail")
    assert 'proxy_protocol = "off"' in failed["hint"]
