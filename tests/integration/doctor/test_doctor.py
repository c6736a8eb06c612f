"""The doctor asks real servers: DNS on loopback, Postfix as it should be and as not."""

import asyncio
import hashlib
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from drainer.cli.options import load
from drainer.doctor import dialogue, probe_dns, probe_host, test_messages
from drainer.doctor.build import DoctorRequest, make_examination
from drainer.doctor.checks.facts import DoctorFacts
from drainer.doctor.dialogue import seconds_ahead
from drainer.doctor.probe_host import _Timex, is_synchronised
from drainer.doctor.run import collect_facts
from drainer.ledger import engine
from drainer.ledger.write_probe import try_writing
from drainer.runtime.threads import aside
from drainer.smtp.route import Timeouts
from tests.support.command.runner import Result, call, end, environment, start
from tests.support.dns.zones import SERVFAIL, TIMEOUT, serving, zone_of
from tests.support.mta.policy_server import Greylist
from tests.support.mta.postfix import PrivatePostfix, free_port
from tests.support.mta.roles import Primary
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Delay, Drop, Script, Stall, Step, View
from tests.support.tls.certificates import Certificate, expired, self_signed

DOMAIN = "example.org"
KNOWN = "anna@example.org"
STRICT, SLOPPY, FIRST = "mx2.example.net", "mx3.example.com", "mx1.example.org"
StartPeer = Callable[..., PeerThread]

ZONE = zone_of(
    {
        DOMAIN: [
            ("MX", f"10 {FIRST}"),
            ("MX", f"20 {STRICT}"),
            ("MX", f"30 {SLOPPY}"),
            ("NS", "ns1.example.org"),
        ],
        FIRST: [("A", "127.0.0.1")],
        STRICT: [("A", "127.0.0.2")],
        "example.net": [("NS", "ns1.example.net"), ("NS", "ns1.example.org")],
        SLOPPY: [("A", "127.0.0.3")],
        "example.com": [("NS", "NS1.Example.Org"), ("TXT", "v=spf1 -all")],
        "single.example": [("MX", f"0 {FIRST}")],
        "alias.example": [("MX", f"10 {FIRST}"), ("MX", "20 mx.alias.example")],
        "mx.alias.example": [("CNAME", STRICT)],
        "mute.example": [(TIMEOUT, "")],
        "failing.example": [(SERVFAIL, "")],
        "odd.example": [
            ("MX", f"10 {FIRST}"),
            ("MX", r"20 a\027[2Jb.example"),
            ("MX", "30 127.0.0.7"),
        ],
        "lax.example": [("TXT", "v=spf1 ~all")],
    }
)
GTUBE_FILTER = "/GTUBE-STANDARD-ANTI/ REJECT 5.7.1 this is spam\n"
EICAR_FILTER = "/^WDVPIVAlQEFQWzRcUFpYNTQ/ REJECT 5.7.1 this is a virus\n"


@pytest.fixture(scope="module")
def dns() -> Iterator[str]:
    """Give the address of a DNS server that knows the zone."""
    with serving(ZONE) as servers:
        yield f"127.0.0.1:{servers.port}"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Give a certificate for the strict backup."""
    return self_signed(tmp_path_factory.mktemp("strict"), STRICT, days=90)


@pytest.fixture(autouse=True)
def _environment(
    monkeypatch: pytest.MonkeyPatch, certificate: Certificate, tmp_path: Path
) -> None:
    """Trust that certificate; have a name, and a folder of our own."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.certificate))
    monkeypatch.setenv("DRAINER_PRIMARY__HELO", "doctor.example")
    monkeypatch.chdir(tmp_path)


def listening(server: PrivatePostfix, address: str, made: Certificate) -> None:
    """Let a Postfix listen on another loopback address as well, with TLS."""
    pem = server.base / "tls.pem"
    pem.write_bytes(made.key.read_bytes() + made.certificate.read_bytes())
    server.set(smtpd_tls_security_level="may", smtpd_tls_chain_files=str(pem))
    server.add_master(f"{address}:{server.port} inet n - n - - smtpd")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait shortly for DNS: the answer will not come."""
    monkeypatch.setenv("DRAINER_BOUNCE__DNS_TIMEOUT", "200ms")


@pytest.fixture(scope="module")
def strict(
    backup_postfix: Callable[..., PrivatePostfix], certificate: Certificate
) -> PrivatePostfix:
    """Give a backup as it should be: it knows the users, and filters like them."""
    server = backup_postfix(
        parameters={
            "mynetworks": "127.0.0.9/32",
            "relay_recipient_maps": f"inline:{{{KNOWN}=ok}}",
            "smtpd_recipient_restrictions": "reject_unauth_destination",
        }
    )
    filters = server.base / "filters"
    filters.write_text(GTUBE_FILTER + EICAR_FILTER, "ascii")
    server.set(body_checks=f"regexp:{filters}")
    listening(server, "127.0.0.2", certificate)
    restart(server)
    return server


@pytest.fixture(scope="module")
def sloppy(
    backup_postfix: Callable[..., PrivatePostfix],
    tmp_path_factory: pytest.TempPathFactory,
) -> PrivatePostfix:
    """Give a backup that takes everything from everybody, its certificate expired."""
    server = backup_postfix()
    made = expired(tmp_path_factory.mktemp("sloppy"), "old.example.com")
    listening(server, "127.0.0.3", made)
    restart(server)
    return server


@pytest.fixture(scope="module")
def primary(primary_postfix: Callable[..., Primary]) -> Primary:
    """Give a primary that knows its user and lets everybody relay to it."""
    users = {"virtual_mailbox_maps": f"inline:{{{KNOWN}=all/}}"}
    return primary_postfix(parameters=users)


def restart(server: PrivatePostfix) -> None:
    """Start it again, so that it listens on its new address."""
    server.stop()
    server.start()


def doctor(dns: str, domain: str = DOMAIN, *args: object) -> Result:
    """Run the doctor with a DNS server of ours, a ledger here, a known recipient."""
    usual = ["--dns", dns, "--ledger", "here.db"]
    if "--primary" not in args and FIRST in str(ZONE.records.get(domain)):
        usual += ["--primary", at(FIRST, free_port())]
    if "--recipient" not in args and domain == DOMAIN:
        usual += ["--recipient", KNOWN]
    return call("doctor", domain, *usual, *args)


def verdicts(result: Result, subject: str = "") -> dict[str, str]:
    """Return the verdict of each check, of one subject if it is named."""
    return {
        each["check"]: each["verdict"]
        for each in result.json["findings"]
        if not subject or each["subject"].startswith(subject)
    }


def found(result: Result, check: str, subject: str = "") -> dict[str, Any]:
    """Return one finding."""
    (one,) = [
        each
        for each in result.json["findings"]
        if each["check"] == check and each["subject"].startswith(subject)
    ]
    return dict(one)


def at(host: str, port: int) -> str:
    """Return a host with its port."""
    return f"{host}:{port}"


def knows(view: View) -> Step:
    """Accept the known recipient alone."""
    if view.path == KNOWN:
        return "250 2.1.5 ok"
    ours = view.path.endswith(f"@{DOMAIN}")
    return "550 5.1.1 no such user" if ours else "554 5.7.1 Relay access denied"


def verbs(peer: PeerThread) -> set[str]:
    """Return the verbs that were heard."""
    return {command.line.split(b" ")[0].decode() for command in peer.commands}


# ---- real servers


def test_a_backup_as_it_should_be(
    dns: str, strict: PrivatePostfix, primary: Primary
) -> None:
    """Nothing fails, also with the test messages, and nothing is left in its queue."""
    result = doctor(
        dns, DOMAIN, "--json", "--primary", at(FIRST, primary.port),
        "--backup", at(STRICT, strict.port), "--send-tests",
    )  # fmt: skip
    assert result.code == 0, result
    assert result.json["ready"] is True
    assert result.json["backups"] == [STRICT]
    of_backup = {k: v for k, v in verdicts(result, STRICT).items() if "backup-" in k}
    assert set(of_backup.values()) == {"ok"}, of_backup
    assert "this is spam" in found(result, "backup-spam")["found"]
    assert "this is a virus" in found(result, "backup-virus")["found"]
    of_primary = {k: v for k, v in verdicts(result).items() if "primary-" in k}
    assert set(of_primary.values()) == {"ok"}, result.json["findings"]
    assert strict.queue_files(("incoming", "active", "deferred", "hold")) == []
    assert primary.received() == []


def test_a_backup_as_it_should_not_be(
    dns: str, sloppy: PrivatePostfix, primary: Primary
) -> None:
    """Relay, users, certificate, filters: each is named, with a remedy; exit 3."""
    result = doctor(
        dns, DOMAIN, "--json", "--primary", at(FIRST, primary.port),
        "--backup", at(SLOPPY, sloppy.port), "--send-tests",
    )  # fmt: skip
    assert result.code == 3
    failures = [f for f in result.json["findings"] if f["verdict"] == "fail"]
    assert [f["check"] for f in failures] == [
        "backup-tls-expiry", "backup-tls-name", "backup-tls-chain", "backup-validates",
        "backup-relay", "backup-spam", "backup-virus",
    ]  # fmt: skip
    assert {f["subject"] for f in failures} == {SLOPPY}
    assert all(f["remedy"] for f in failures)
    assert "old.example.com" in found(result, "backup-tls-name")["found"]
    assert verdicts(result)["mx-name-servers"] == "warn"
    assert len(sloppy.wait_queue(2)) == 2
    assert "example.com" not in "".join(re.findall("to=<[^>]*>", sloppy.log()))


def test_a_primary_that_greylists_is_reported(
    dns: str, peer: StartPeer, primary_postfix: Callable[..., Primary]
) -> None:
    """A real Postfix with a policy server behind it."""
    with Greylist() as greylist:
        service = f"check_policy_service {greylist.place}"
        server = primary_postfix(parameters={"smtpd_recipient_restrictions": service})
        result = doctor(
            dns, DOMAIN, "--json", "--primary", at(FIRST, server.port),
            "--backup", at(STRICT, peer(rcpt=knows, host="127.0.0.2").port),
        )  # fmt: skip
    assert result.code == 3
    assert verdicts(result)["primary-greylist"] == "fail"
    assert verdicts(result)["primary-spf"] == "unknown"


# ---- what a primary may say


def refuses_forgery(view: View) -> Step:
    """Check SPF as a primary does that does not know us for its backup."""
    sender = view.message.reverse_path if view.message else ""
    return (
        "550 5.7.23 SPF check failed"
        if sender.endswith("@example.com")
        else knows(view)
    )


@pytest.mark.parametrize(
    ("rcpt", "sender", "verdict"),
    [
        (refuses_forgery, "x@example.com", "fail"),
        (knows, "x@example.com", "ok"),
        (knows, "x@lax.example", "unknown"),
        (knows, "x@failing.example", "unknown"),
    ],
    ids=["checked", "exempt", "a sender that is not strict", "DNS does not tell"],
)
def test_a_strict_sender(
    dns: str, peer: StartPeer, rcpt: Any, sender: str, verdict: str
) -> None:
    """As far as RCPT, and never DATA."""
    server = peer(rcpt=rcpt)
    result = doctor(
        dns, DOMAIN, "--json", "--primary", at(FIRST, server.port),
        "--backup", at(STRICT, free_port("127.0.0.2")), "--spf-sender", sender,
    )  # fmt: skip
    assert verdicts(result)["primary-spf"] == verdict
    assert "DATA" not in verbs(server)


def test_our_own_name_there_is_a_loop(dns: str, peer: StartPeer) -> None:
    """Whoever runs this on the primary learns it."""
    server = peer(name="doctor.example")
    result = doctor(dns, DOMAIN, "--json", "--primary", at(FIRST, server.port))
    assert result.code == 3
    assert "our own name" in found(result, "primary-ready")["found"]


# ---- test messages go to whom the operator named


def test_hosts_that_dns_names_get_no_test_message(dns: str) -> None:
    """Exit 2 before anything is asked, and what to do."""
    before = len(ZONE.asked)
    result = doctor(dns, DOMAIN, "--send-tests")
    assert result.code == 2
    assert "--backup HOST" in result.stderr
    assert len(ZONE.asked) == before


def test_a_test_message_needs_a_recipient(dns: str) -> None:
    """Somebody has to know of it."""
    result = call(
        "doctor", DOMAIN, "--dns", dns, "--send-tests", "--backup", STRICT
    )  # fmt: skip
    assert result.code == 2
    assert "--recipient" in result.stderr


def test_without_the_option_no_message_is_sent(dns: str, peer: StartPeer) -> None:
    """Four transactions of RCPT, each ended by RSET; and what is skipped says so."""
    backup = peer(rcpt=knows, host="127.0.0.2")
    result = doctor(dns, DOMAIN, "--json", "--backup", at(STRICT, backup.port))
    assert verdicts(result, STRICT)["backup-spam"] == "skipped"
    assert verdicts(result, STRICT)["backup-validates"] == "ok"
    assert verdicts(result, STRICT)["backup-relay"] == "ok"
    assert verbs(backup) == {"EHLO", "MAIL", "RCPT", "RSET", "QUIT"}
    asked = [c.line.decode() for c in backup.commands if c.line.startswith(b"RCPT")]
    assert asked[0] == f"RCPT TO:<{KNOWN}>"
    assert re.fullmatch(r"RCPT TO:<drainer-doctor-[0-9a-f]{12}@example.org>", asked[1])
    assert asked[2:] == ["RCPT TO:<drainer-doctor@example.com>"] * 2
    senders = [t.reverse_path for t in backup.transactions]
    assert senders == ["", "", "", "postmaster@example.org"]


def test_test_messages_are_what_filters_know(dns: str, peer: StartPeer) -> None:
    """From nobody, to the recipient; no file of ours holds their strings."""
    backup = peer(rcpt=knows, host="127.0.0.2")
    doctor(dns, DOMAIN, "--backup", at(STRICT, backup.port), "--send-tests")
    spam, virus = sorted(backup.accepted, key=lambda each: len(each.content or b""))
    assert {each.reverse_path for each in (spam, virus)} == {""}
    assert {tuple(each.forward_paths) for each in (spam, virus)} == {(KNOWN,)}
    lines = (spam.content or b"").splitlines()
    (line,) = [line for line in lines if b"GTUBE-STANDARD" in line]
    assert (len(line), line[:4]) == (68, b"XJS*")
    parts = list(message_from_bytes(virus.content or b"").walk())
    attached = parts[-1].get_payload(decode=True)
    assert isinstance(attached, bytes)
    assert hashlib.sha256(attached).hexdigest() == (
        "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"
    )
    source = Path(test_messages.__file__).read_bytes()
    assert line not in source
    assert attached not in source


# ---- what DNS may say


def test_a_domain_with_one_mx_has_no_backup(dns: str) -> None:
    """Said in so many words."""
    result = doctor(dns, "single.example", "--json")
    assert result.code == 3
    assert "is the only MX" in found(result, "mx-order")["found"]


def test_an_alias_is_found(dns: str) -> None:
    """Also though the resolver follows it to an address."""
    backup = at("mx.alias.example", free_port("127.0.0.2"))
    result = doctor(dns, "alias.example", "--json", "--backup", backup)
    assert found(result, "mx-alias", "mx.alias")["verdict"] == "fail"
    assert found(result, "mx-address", "mx.alias")["found"] == "127.0.0.2"


@pytest.mark.usefixtures("impatient")
def test_a_domain_about_which_dns_is_silent_is_not_ready(dns: str) -> None:
    """Senders find no server either; and it does not take long."""
    result = doctor(dns, "mute.example", "--json")
    assert result.code == 3
    assert verdicts(result)["mx-records"] == "fail"
    assert "--dns" in found(result, "mx-records")["remedy"]
    assert result.json["seconds"] < 5
    assert result.json["primary"] == ""


def test_a_domain_that_does_not_exist_fails(dns: str) -> None:
    """With exit status 3; and hosts that are named are looked at all the same."""
    result = doctor(dns, "absent.example", "--json", "--backup", "localhost:9")
    assert result.code == 3
    assert verdicts(result)["mx-records"] == "fail"
    answers = found(result, "backup-answers", "localhost")
    assert answers["verdict"] == "fail"
    assert "refused" in answers["found"]


def test_hostile_names_and_replies_reach_no_terminal(dns: str, peer: StartPeer) -> None:
    """Controls and markup are shown as what they are."""
    evil = "550 5.1.1 \x1b[2J[red]no[/]"
    server = peer(mail=evil, banner="220 \x1b]0;x\x07 ready", lenient=True)
    backup = at("127.0.0.7", free_port("127.0.0.7"))
    given = ("odd.example", "--primary", at(FIRST, server.port), "--backup", backup)
    result = doctor(dns, *given)
    assert result.code == 3
    assert "\x1b" not in result.stdout + result.stderr
    assert r"\x1b" in result.stdout
    assert "[red]no[/]" in result.stdout
    told = doctor(dns, *given, "--json")
    assert verdicts(told, "127.0.0.7")["mx-literal"] == "fail"
    assert "\x1b" not in told.stdout


def test_a_peer_that_breaks_off_is_unknown(dns: str, peer: StartPeer) -> None:
    """Not a failure of what it did not answer."""
    backup = peer(rcpt=Drop(), host="127.0.0.2")
    result = doctor(dns, DOMAIN, "--json", "--backup", at(STRICT, backup.port))
    of_backup = verdicts(result, STRICT)
    assert of_backup["backup-answers"] == "ok"
    assert of_backup["backup-validates"] == "unknown"
    assert of_backup["backup-relay"] == "unknown"


# ---- TLS


def test_a_certificate_that_is_not_trusted(
    dns: str, peer: StartPeer, tmp_path: Path
) -> None:
    """Fails as such, and the questions are asked all the same, under TLS."""
    made = self_signed(tmp_path, STRICT, days=10)
    server = peer(rcpt=knows, host="127.0.0.2", tls=made.server_context())
    result = doctor(dns, DOMAIN, "--json", "--backup", at(STRICT, server.port))
    of_backup = verdicts(result, STRICT)
    assert of_backup["backup-tls"] == "ok"
    assert of_backup["backup-tls-chain"] == "fail"
    assert "self-signed" in found(result, "backup-tls-chain")["found"]
    assert of_backup["backup-tls-name"] == "ok"
    assert of_backup["backup-tls-expiry"] == "warn"
    assert of_backup["backup-validates"] == "ok"
    assert {each.tls for each in server.transactions} == {True}


@pytest.mark.parametrize("answer", [Drop(), "454 4.7.0 not now"], ids=["drop", "454"])
def test_a_handshake_that_fails(
    dns: str, peer: StartPeer, certificate: Certificate, answer: Step
) -> None:
    """Fails as such, and the questions are asked in the clear."""
    context = certificate.server_context()
    server = peer(rcpt=knows, host="127.0.0.2", tls=context, starttls=answer)
    result = doctor(dns, DOMAIN, "--json", "--backup", at(STRICT, server.port))
    assert verdicts(result, STRICT)["backup-tls"] == "fail"
    assert verdicts(result, STRICT)["backup-tls-chain"] == "skipped"
    assert verdicts(result, STRICT)["backup-validates"] == "ok"


@pytest.mark.parametrize(
    "primary", [{"host": "unix:/run/lmtp"}, {"host": "mx", "protocol": "lmtp"}]
)
def test_a_primary_that_speaks_lmtp_is_not_asked(primary: dict[str, Any]) -> None:
    """The doctor asks the SMTP servers that DNS names, and sends them no password."""
    config = load(None, ledger="here.db", sections={"primary": primary})
    order = make_examination(config, DoctorRequest(domain=DOMAIN))
    route = order.primary.route
    assert (str(route), route.protocol) == (f"{DOMAIN}:25", "smtp")
    assert order.named.primary == ""


# ---- time


SHORT = Timeouts(connect=3, banner=0.5, ehlo=3, command=3, quit=0.1)


def hurried(dns: str, *backups: str) -> tuple[DoctorFacts, list[str]]:
    """Look with little patience; return the facts, and what was told meanwhile."""
    port = int(dns.partition(":")[2])
    servers = {"dns_servers": ["127.0.0.1"], "dns_port": port}
    config = load(None, ledger="here.db", sections={"bounce": servers})
    order = make_examination(config, DoctorRequest(domain=DOMAIN, backups=backups))
    order = replace(
        order,
        named=replace(order.named, primary=""),
        ports={**order.ports, FIRST: free_port()},
        backups=replace(order.backups, recipient=KNOWN, limits=SHORT, seconds=2),
        primary=replace(order.primary, limits=SHORT, seconds=2),
    )
    told: list[str] = []
    return asyncio.run(collect_facts(order, told.append)), told


def test_a_silent_backup_takes_no_longer_than_its_time(
    dns: str, peer: StartPeer
) -> None:
    """A banner, a reply, or all of it too slow: each is told, the others go on."""
    mute = peer(host="127.0.0.2", banner=Stall())
    slow = peer(host="127.0.0.3", rcpt=Delay(0.7, "550 5.1.1 no"), lenient=True)
    began = time.monotonic()
    facts, told = hurried(dns, at(STRICT, mute.port), at(SLOPPY, slow.port))
    assert time.monotonic() - began < 15
    first, second = facts.backups
    assert "timeout" in str(first.reached[0][1])
    assert second.answers
    assert second.known is not None
    assert second.elsewhere == ()
    assert any(STRICT in words for words in told)
    assert told[-1] == ""


def test_the_limits_add_up_to_half_a_minute() -> None:
    """DNS names the hosts first, then they are asked, all at once."""
    dns = probe_dns.QUESTION_SECONDS + probe_dns.HOST_SECONDS + 1
    assert dns + dialogue.LOOK_SECONDS + dialogue.LIMITS.quit < 30
    assert probe_host.LOOK_SECONDS < 30


def test_what_blocks_for_ever_does_not_keep_the_process() -> None:
    """It is left to itself; what it would have raised or returned is nobody's."""
    code = (
        "import asyncio, threading\n"
        "from drainer.runtime.threads import aside\n"
        "try:\n    asyncio.run(aside(threading.Event().wait, 0.1))\n"
        "except TimeoutError:\n    print('late')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=20, check=True
    )
    assert done.stdout == b"late\n"


def test_what_blocks_returns_or_raises() -> None:
    """To the one who waits."""
    assert asyncio.run(aside(lambda: 7, 5)) == 7
    with pytest.raises(ZeroDivisionError):
        asyncio.run(aside(lambda: 1 // 0, 5))


@pytest.mark.usefixtures("impatient")
def test_a_person_sees_what_is_waited_for(dns: str) -> None:
    """On a terminal alone."""
    args = ("doctor", "mute.example", "--dns", dns, "--ledger", "here.db")
    shortly = {"DRAINER_BOUNCE__DNS_TIMEOUT": "200ms", "FORCE_COLOR": "1"}
    seen = end(start(*args, env=environment(**shortly)))
    assert "waiting for" in seen.stderr
    assert "waiting for" not in call(*args).stderr


# ---- this host


def test_the_ledger_is_tried_and_nothing_remains(dns: str, tmp_path: Path) -> None:
    """Neither of one that does not exist, nor in one that does."""
    result = doctor(dns, "single.example", "--json")
    assert found(result, "host-ledger")["found"] == "written, and rolled back"
    assert list(tmp_path.iterdir()) == []


def test_a_ledger_that_cannot_be_written_fails(dns: str) -> None:
    """Where even root may not."""
    result = doctor(dns, "single.example", "--json", "--ledger", "/proc/x/l.db")
    assert found(result, "host-ledger")["verdict"] == "fail"
    assert "/proc" in found(result, "host-ledger")["found"]


def test_sources_of_the_configuration_are_read(dns: str, tmp_path: Path) -> None:
    """One that is there, and one that is not."""
    (tmp_path / "spool" / "deferred").mkdir(parents=True)
    config = tmp_path / "drainer.toml"
    config.write_text(
        f'[sources.good]\nurl = "postfix:{tmp_path}/spool"\n'
        f'[sources.gone]\nurl = "postfix:{tmp_path}/gone"\n',
        "utf-8",
    )
    result = doctor(dns, "single.example", "--json", "--config", config)
    assert found(result, "host-sources", "good")["found"] == "readable, and empty"
    assert found(result, "host-sources", "gone")["verdict"] == "fail"


def test_a_ledger_that_is_held_proves_nothing(tmp_path: Path) -> None:
    """A drain writes, for longer than it should."""
    url = engine.parse_url(str(tmp_path / "l.db"))
    database = engine.connect(url, create=True)
    with database.execution_options(writes=True).begin():
        assert "locked" in try_writing(url)
    assert try_writing(url) == ""
    database.dispose()


def test_a_file_that_is_no_ledger_is_left_alone(dns: str, tmp_path: Path) -> None:
    """It fails, and is as it was."""
    other = tmp_path / "other.db"
    other.write_bytes(b"this is somebody's text, and no database\n" * 100)
    before = other.read_bytes()
    result = doctor(dns, "single.example", "--json", "--ledger", other)
    assert found(result, "host-ledger")["verdict"] == "fail"
    assert other.read_bytes() == before
    assert list(tmp_path.iterdir()) == [other]


@pytest.mark.usefixtures("impatient")
def test_too_few_open_files_fail(dns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three for each connection, and forty."""
    monkeypatch.setenv("DRAINER_PRIMARY__CONNECTIONS", "200")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (499, hard))
    try:
        result = doctor(dns, "mute.example", "--json")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found(result, "host-files")["found"] == "499 allowed, 640 needed"
    assert result.code == 3


def test_the_kernel_tells_whether_its_clock_is_kept() -> None:
    """Its structure is laid out as adjtimex(2) has it on 64 bits."""
    assert is_synchronised() in (True, False)
    assert (_Timex.maxerror.offset, _Timex.status.offset) == (24, 40)


@pytest.mark.parametrize(
    ("banner", "seconds"),
    [
        ("220 mx ESMTP Exim 4.96 Wed, 25 Nov 2026 12:00:00 +0000", 60),
        ("220 mx ESMTP Sendmail; Wed, 25 Nov 2026 13:02:00 +0100", -60),
        ("220 mx ESMTP Postfix", None),
        ("220 mx Wed, 99 Nov 2026 12:00:00 +0000", None),
    ],
)
def test_a_banner_may_tell_the_time(banner: str, seconds: float | None) -> None:
    """Exim's and sendmail's do."""
    now = datetime(2026, 11, 25, 12, 1, tzinfo=UTC)
    assert seconds_ahead(banner, now) == seconds


def test_a_clock_that_is_off_is_seen_in_a_banner(dns: str, peer: StartPeer) -> None:
    """Of a backup or of the primary."""
    server = peer(script=Script(banner="220 mx Mon, 23 Nov 2020 12:00:00 +0000"))
    result = doctor(
        dns, "single.example", "--json", "--primary", at(FIRST, server.port)
    )
    assert "ahead of mx1.example.org" in found(result, "host-clock")["found"]


# ---- bad usage


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["localhost"], "not a valid domain"),
        (["192.0.2.1"], "not a valid domain"),
        (["a b.example"], "not a valid domain"),
        ([DOMAIN, "--dns", "ns.example"], "not a valid address"),
        ([DOMAIN, "--backup", "a b"], "not a valid host"),
        (
            [DOMAIN, "--recipient", "anna@example.com"],
            "not an ASCII address of example.org",
        ),
        ([DOMAIN, "--recipient", "anna"], "anna"),
        ([DOMAIN, "--recipient", "\u00e4nna@example.org"], "not an ASCII address"),
        ([DOMAIN, "--spf-sender", "\u00e4nna@example.org"], "not ASCII"),
        ([DOMAIN, "--spf-sender", "x\r\nDATA@example.com"], "example.com"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage_is_reported(args: list[str], words: str) -> None:
    """Exit 2, before anything is asked."""
    result = call("doctor", *args)
    assert result.code == 2
    assert words in result.stderr
