"""The health check: every stage told with its reply, its verdict and what to do next."""  # noqa: E501

import ssl
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drainer.smtp import peer_probe
from tests.support.command.runner import Bench, Result, call
from tests.support.mta.postfix import free_port
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import (
    EXTENSIONS,
    Drop,
    Garbage,
    ReplyThenDrop,
    Reset,
    Stall,
    Step,
    View,
)
from tests.support.tls.certificates import Certificate, self_signed

GOOD = "good@example.org"
StartPeer = Callable[..., PeerThread]


def knows_good(view: View) -> Step:
    """Accept the known-good recipient and nobody else, as a primary should."""
    return "250 2.1.5 ok" if view.path == GOOD else "550 5.1.1 unknown"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Give a configuration with a known-good recipient."""
    made = Bench(tmp_path)
    made.configure(health={"accept": [GOOD]})
    return made


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Give a self-signed certificate for localhost."""
    return self_signed(tmp_path_factory.mktemp("certificate"))


def check(bench: Bench, *args: str) -> Result:
    """Run the check with the bench's configuration."""
    return call("check", "--config", bench.config, *args)


def stages(result: Result) -> dict[str, dict[str, Any]]:
    """Return the stages of the JSON form by name, in order."""
    return {stage["stage"]: stage for stage in result.json["stages"]}


def verbs(peer: PeerThread) -> list[str]:
    """Return the verbs of all commands, in order."""
    return [command.line.split(b" ")[0].decode().upper() for command in peer.commands]


# ---- a healthy primary


def test_a_healthy_primary_is_ready(peer: StartPeer, bench: Bench) -> None:
    """Every stage once, in order, with its time and reply; and never DATA."""
    server = peer(rcpt=knows_good)
    bench.port = server.port
    result = check(bench, "--json")
    assert result.code == 0
    assert result.json["ready"] is True
    assert result.json["loop"] is False
    found = stages(result)
    asked = ["connect", "banner", "ehlo", "mail", f"rcpt {GOOD}", "rcpt random"]
    assert list(found) == [*asked, "rset", "quit"]
    assert {stage["verdict"] for stage in found.values()} == {"ok"}
    assert {stage["hint"] for stage in found.values()} == {""}
    assert all(stage["seconds"] >= 0 for stage in found.values())
    assert found["banner"]["reply"] == "220 peer.example ESMTP"
    assert "PIPELINING" in found["ehlo"]["reply"]
    assert found["rcpt random"]["reply"] == "550 5.1.1 unknown"
    assert verbs(server) == ["EHLO", "MAIL", "RCPT", "RCPT", "RSET", "QUIT"]
    assert server.commands[1].line == b"MAIL FROM:<>"


def test_the_table_is_for_people(peer: StartPeer, bench: Bench) -> None:
    """The same facts, and nothing hostile reaches the terminal."""
    server = peer(rcpt=knows_good, banner="220 \x1b[2Jpeer.example [red]ESMTP[/]")
    bench.port = server.port
    result = check(bench)
    assert result.code == 0
    for word in ("connect", "banner", "ehlo", "mail", "rcpt random", "quit"):
        assert word in result.stdout
    assert "\x1b" not in result.stdout
    assert "[red]ESMTP[/]" in result.stdout


def test_a_check_writes_nothing(peer: StartPeer, bench: Bench) -> None:
    """No ledger, no log, no file at all (P9)."""
    bench.port = peer(rcpt=knows_good).port
    bench.config.touch()
    before = sorted(bench.root.rglob("*"))
    assert check(bench).code == 0
    assert sorted(bench.root.rglob("*")) == before


def test_starttls_comes_with_the_facts_of_the_certificate(
    peer: StartPeer, bench: Bench, certificate: Certificate
) -> None:
    """Protocol, subject and how long it is valid; and EHLO is asked again."""
    server = peer(rcpt=knows_good, tls=certificate.server_context())
    bench.port = server.port
    bench.configure(primary={"tls": "opportunistic"})
    result = check(bench, "--json")
    assert result.code == 0
    starttls = stages(result)["starttls"]
    assert starttls["verdict"] == "ok"
    assert starttls["tls"].startswith("TLS")
    assert "localhost" in starttls["certificate"]["subject"]
    assert starttls["certificate"]["not_after"]
    assert verbs(server).count("EHLO") == 2
    assert "certificate" in check(bench).stdout


def test_the_sender_of_the_check_is_configured(peer: StartPeer, bench: Bench) -> None:
    """A primary that accepts the null sender anyway proves little."""
    server = peer(rcpt=knows_good)
    bench.port = server.port
    bench.configure(health={"sender": "probe@example.com"})
    assert check(bench).code == 0
    assert server.commands[1].line == b"MAIL FROM:<probe@example.com>"


# ---- each stage that fails


FAILING: dict[str, tuple[dict[str, Any], str, str]] = {
    # name: (what the peer does, the stage that fails, words of its hint)
    "banner-421": (
        {"banner": ReplyThenDrop("421 4.3.2 not now")},
        "banner",
        "accepts no mail now",
    ),
    "banner-554": ({"banner": "554 no"}, "banner", "does not serve this host"),
    "banner-listed": (
        {"banner": "554 5.7.1 client [127.0.0.1] blocked using bl.example"},
        "banner",
        "refuses this host's address",
    ),
    "banner-http": (
        {"banner": Garbage(b"HTTP/1.1 400 Bad Request\r\n")},
        "banner",
        "web server",
    ),
    "banner-dropped": ({"banner": Drop()}, "banner", "without a reply"),
    "banner-garbage": ({"banner": Garbage()}, "banner", "not an SMTP server"),
    "ehlo-550": ({"ehlo": "550 5.7.1 bad name"}, "ehlo", "[primary] helo"),
    "ehlo-504": (
        {"ehlo": "504 5.5.2 <x>: need fully-qualified hostname"},
        "ehlo",
        "full name, with matching forward and reverse DNS",
    ),
    "ehlo-dropped": ({"ehlo": Drop()}, "ehlo", "without a reply"),
    "mail-550": ({"mail": "550 5.7.1 no"}, "mail", "[health] sender"),
    "mail-421": ({"mail": ReplyThenDrop("421 bye")}, "mail", "[health] sender"),
    "mail-530": ({"mail": "530 5.7.1 Authentication required"}, "mail", "a login"),
    "mail-530-tls": (
        {"mail": "530 5.7.0 Must issue a STARTTLS command first"},
        "mail",
        "it requires TLS",
    ),
    "mail-451": (
        {"mail": "451 4.3.5 Server configuration error"},
        "mail",
        "a part of it does not work",
    ),
    "mail-450": (
        {"mail": "450 4.1.8 Sender address rejected: Domain not found"},
        "mail",
        "resolver",
    ),
    "mail-dropped": ({"mail": Drop()}, "mail", "without a reply"),
    "rcpt-550": (
        {"rcpt": "554 5.7.1 Relay access denied"},
        f"rcpt {GOOD}",
        "mynetworks",
    ),
    "rcpt-spf": (
        {"rcpt": "550 5.7.23 Recipient address rejected: SPF fail"},
        f"rcpt {GOOD}",
        "exempt this host from SPF",
    ),
    "rcpt-450": ({"rcpt": "450 4.1.1 unknown"}, f"rcpt {GOOD}", "user table"),
    "rcpt-dropped": ({"rcpt": Drop()}, f"rcpt {GOOD}", "without a reply"),
}


@pytest.mark.parametrize(
    ("script", "stage", "hint"), FAILING.values(), ids=list(FAILING)
)
def test_a_stage_that_fails_is_named_with_a_hint(
    peer: StartPeer, bench: Bench, script: dict[str, Any], stage: str, hint: str
) -> None:
    """Exit 3, the stage and its reply on stderr, and what to do next."""
    bench.port = peer(**script).port
    result = check(bench, "--json")
    assert result.code == 3
    assert result.json["ready"] is False
    found = stages(result)
    failed = [name for name, fact in found.items() if fact["verdict"] == "fail"]
    assert failed[0] == stage
    assert hint in found[stage]["hint"]
    before = list(found)[: list(found).index(stage)]
    assert {found[name]["verdict"] for name in before} <= {"ok"}
    assert f"is not ready: {stage}" in result.stderr
    assert "Traceback" not in result.stderr
    assert hint in check(bench).stdout.replace("\n", " ")


def _random_gets(answer: Step) -> Callable[[View], Step]:
    return lambda view: "250 2.1.5 ok" if view.path == GOOD else answer


@pytest.mark.parametrize(
    ("answer", "verdict", "code"),
    [
        ("451 4.3.0 lookup failed", "warn", 0),
        ("250 2.1.5 ok", "warn", 0),
        (ReplyThenDrop("421 4.3.2 too busy"), "fail", 3),
        (Drop(), "fail", 3),
    ],
    ids=["put-off", "catch-all", "421", "dropped"],
)
def test_a_random_recipient_must_be_refused_for_good(
    peer: StartPeer, bench: Bench, answer: Step, verdict: str, code: int
) -> None:
    """Whatever else it gets is no "ok", and says what to do next."""
    bench.port = peer(rcpt=_random_gets(answer)).port
    result = check(bench, "--json")
    assert result.code == code
    found = stages(result)["rcpt random"]
    assert found["verdict"] == verdict
    assert found["hint"]


def test_who_puts_everybody_off_is_not_ready(peer: StartPeer, bench: Bench) -> None:
    """Without a known-good address nothing else tells that the user table is away."""
    bench.port = peer(rcpt="451 4.3.0 lookup failed").port
    bench.configure(health={"accept": []}, primary={"domains": ["example.org"]})
    result = check(bench, "--json")
    assert result.code == 3
    assert "user table" in stages(result)["rcpt random"]["hint"]


@pytest.mark.parametrize("accept", [[], [GOOD]], ids=["no-known-good", "known-good"])
@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("554 5.7.1 <x@example.org>: Relay access denied", "mynetworks"),
        ("454 4.7.1 Relay access denied", "mynetworks"),
        ("550 5.7.1 Unable to relay", "mynetworks"),
        ("530 5.7.0 Authentication required", "username"),
    ],
)
def test_who_refuses_us_is_not_ready_unless_it_accepts_another(
    peer: StartPeer, bench: Bench, words: str, remedy: str, accept: list[str]
) -> None:
    """Such a refusal of a random recipient shows no user table."""
    bench.port = peer(rcpt=_random_gets(words)).port
    bench.configure(health={"accept": accept}, primary={"domains": ["example.org"]})
    result = check(bench, "--json")
    assert result.code == (0 if accept else 3)
    found = stages(result)["rcpt random"]
    assert (found["verdict"] == "fail") != bool(accept)
    assert accept or remedy in found["hint"]


@pytest.mark.parametrize("accept", [[], [GOOD]], ids=["no-known-good", "known-good"])
@pytest.mark.parametrize("words", ["450 4.2.0 Greylisted", "450 4.7.1 Try again"])
def test_a_primary_that_greylists_strangers_is_ready(
    peer: StartPeer, bench: Bench, words: str, accept: list[str]
) -> None:
    """It would defer every check for ever; mail that is tried again gets through."""
    bench.port = peer(rcpt=_random_gets(words)).port
    bench.configure(health={"accept": accept}, primary={"domains": ["example.org"]})
    result = check(bench, "--json")
    assert result.code == 0
    assert stages(result)["rcpt random"]["verdict"] == "warn"
    assert "greylist" in stages(result)["rcpt random"]["hint"]


@pytest.mark.parametrize("stage", ["mail", "rcpt"])
def test_greylisting_of_all_is_a_warning(
    peer: StartPeer, bench: Bench, stage: str
) -> None:
    """Nothing is wrong: the primary only wants it later."""
    bench.port = peer(**{stage: "451 4.7.1 Greylisting in action, come back"}).port
    result = check(bench, "--json")
    assert result.code == 0
    found = stages(result)[stage if stage == "mail" else f"rcpt {GOOD}"]
    assert (found["verdict"], "greylists" in found["hint"]) == ("warn", True)


def test_a_catch_all_without_a_known_good_recipient_says_that_nothing_can_tell(
    peer: StartPeer, bench: Bench
) -> None:
    """A wrong server that takes any mail would look healthy."""
    bench.port = peer().port
    bench.configure(health={"accept": []}, primary={"domains": ["example.org"]})
    found = stages(check(bench, "--json"))["rcpt random"]
    assert found["verdict"] == "warn"
    assert "nothing can show that this is the wrong server" in found["hint"]


@pytest.mark.parametrize(
    ("answer", "verdict", "code"),
    [("500 5.5.1 what?", "warn", 0), (Drop(), "fail", 3)],
    ids=["refused", "dropped"],
)
def test_a_reset_that_fails_is_reported(
    peer: StartPeer, bench: Bench, answer: Step, verdict: str, code: int
) -> None:
    """A session that ends there is no healthy one."""
    bench.port = peer(rcpt=knows_good, rset=answer).port
    result = check(bench, "--json")
    assert result.code == code
    assert stages(result)["rset"]["verdict"] == verdict
    assert stages(result)["rset"]["hint"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("454 4.7.0 not now", (0, "warn")),
        (Drop(), (0, "warn")),
        (ReplyThenDrop("421 4.3.2 bye"), (3, "fail")),
    ],
    ids=["refused", "dropped", "421"],
)
def test_tls_that_fails_is_reported_though_mail_may_go_in_the_clear(
    peer: StartPeer,
    bench: Bench,
    certificate: Certificate,
    answer: Step,
    expected: tuple[int, str],
) -> None:
    """Opportunistic is the default; nobody may believe that it is TLS."""
    context = certificate.server_context()
    bench.port = peer(rcpt=knows_good, tls=context, starttls=answer).port
    bench.configure(primary={"tls": "opportunistic"})
    result = check(bench, "--json")
    found = stages(result)["starttls"]
    assert (result.code, found["verdict"]) == expected
    assert found["hint"]
    assert result.code or "unencrypted" in found["hint"]


def test_a_primary_that_demands_tls_says_why_there_is_none(
    peer: StartPeer, bench: Bench, certificate: Certificate
) -> None:
    """The refusal comes at MAIL, and its cause at STARTTLS."""
    server = peer(
        tls=certificate.server_context(),
        starttls=Drop(),
        mail="530 5.7.0 Must issue a STARTTLS command first",
    )
    bench.port = server.port
    bench.configure(primary={"tls": "opportunistic"})
    result = check(bench, "--json")
    assert result.code == 3
    hint = stages(result)["mail"]["hint"]
    assert "it requires TLS, and the handshake failed: closed" in hint
    assert "ended the connection" in hint


def test_an_old_tls_version_is_named_and_can_be_allowed(
    peer: StartPeer, bench: Bench, certificate: Certificate
) -> None:
    """An Exchange of old speaks TLS 1.0 and 1.1 only."""
    context = certificate.server_context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    bench.port = peer(rcpt=knows_good, tls=context).port
    bench.configure(primary={"tls": "required"})
    result = check(bench, "--json")
    assert result.code == 3
    assert 'tls_minimum = "1.0"' in stages(result)["starttls"]["hint"]
    bench.configure(primary={"tls": "required", "tls_minimum": "1.0"})
    result = check(bench, "--json")
    assert result.code == 0
    assert stages(result)["starttls"]["tls"] == "TLSv1.1"


def test_a_reset_is_a_failure(peer: StartPeer, bench: Bench) -> None:
    """In words, not as a number of an error; it may come before we have noticed."""
    bench.port = peer(banner=Reset()).port
    result = check(bench, "--json")
    assert result.code == 3
    found = stages(result)
    assert found.get("banner", found["connect"])["hint"]


def test_a_primary_that_is_silent_is_a_failure(
    peer: StartPeer, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the banner's timeout, and in vain with TLS."""
    monkeypatch.setattr(peer_probe, "PATIENCE", 0.5)
    bench.port = peer(banner=Stall()).port
    bench.configure(primary={"banner_timeout": "150ms"})
    result = check(bench, "--json")
    assert result.code == 3
    assert "firewall" in stages(result)["banner"]["hint"]


def test_nobody_listens(bench: Bench) -> None:
    """Connection refused: is the server running?"""  # noqa: D400
    bench.port = free_port()
    result = check(bench, "--json")
    assert result.code == 3
    assert "nothing listens there" in stages(result)["connect"]["hint"]
    assert str(bench.port) in result.stderr


def test_the_name_does_not_resolve(bench: Bench) -> None:
    """Check --to and DNS."""
    bench.configure(primary={"host": "primary.invalid"})
    result = check(bench, "--json")
    assert result.code == 3
    assert "does not resolve" in result.json["stages"][0]["hint"]
    assert "primary.invalid" in result.stderr


@pytest.mark.parametrize(
    ("script", "hint"),
    [
        ({"starttls": "454 4.7.0 not now"}, "refused TLS"),
        ({"starttls": Drop()}, "without a reply"),
        ({"tls": None}, "removes STARTTLS"),
    ],
    ids=["refused", "dropped", "not-offered"],
)
def test_required_tls_that_is_not_to_be_had_fails(
    peer: StartPeer,
    bench: Bench,
    certificate: Certificate,
    script: dict[str, Any],
    hint: str,
) -> None:
    """At STARTTLS, and nothing is said in the clear after it."""
    known: dict[str, Any] = {"tls": certificate.server_context(), "rcpt": knows_good}
    server = peer(**(known | script))
    bench.port = server.port
    bench.configure(primary={"tls": "required"})
    result = check(bench, "--json")
    assert result.code == 3
    assert hint in stages(result)["starttls"]["hint"]
    assert "MAIL" not in verbs(server)


def test_a_certificate_that_does_not_verify_fails(
    peer: StartPeer, bench: Bench, certificate: Certificate
) -> None:
    """With what may be done about it."""
    bench.port = peer(tls=certificate.server_context()).port
    bench.configure(primary={"tls": "required", "verify": True})
    result = check(bench, "--json")
    assert result.code == 3
    assert "certificate" in stages(result)["starttls"]["hint"]
    assert "certificate verify failed" in stages(result)["starttls"]["reply"]


def test_a_refused_login_fails_and_is_tried_once(
    peer: StartPeer,
    bench: Bench,
    certificate: Certificate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The password is shown nowhere."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.certificate))
    monkeypatch.setenv("DRAINER_PRIMARY__PASSWORD", "open sesame")
    server = peer(
        tls=certificate.server_context(),
        extensions=(*EXTENSIONS, "AUTH PLAIN LOGIN"),
        auth="535 5.7.8 no",
    )
    bench.port = server.port
    bench.configure(primary={"host": "localhost", "username": "me", "tls": "required"})
    result = check(bench, "--json")
    assert result.code == 3
    assert "may lock the account" in stages(result)["auth"]["hint"]
    assert verbs(server).count("AUTH") == 1
    assert "open sesame" not in result.stdout + result.stderr


# ---- warnings


def test_a_drain_repeats_the_warnings_of_its_check(
    peer: StartPeer, bench: Bench
) -> None:
    """Its operator may never have run the check."""
    bench.port = peer().port
    bench.configure(health={"accept": []})
    (bench.root / "mail" / "cur").mkdir(parents=True)
    (bench.root / "mail" / "new").mkdir()
    result = bench.run("drain", f"maildir:{bench.root / 'mail'}")
    assert result.code == 0
    assert "warning: check of rcpt random: the primary accepts any" in result.stderr
    assert "nothing can show that this is the wrong server" in result.stderr
    assert result.stderr.count("[health] accept to an address") == 1


def test_what_is_held_is_printed_with_its_remedy(peer: StartPeer, bench: Bench) -> None:
    """At the end of the drain that held it; and no bracket of it vanishes."""
    refusal = "550 5.7.60 Client does not have permissions to send as this sender"
    bench.port = peer(mail=refusal).port
    folder = bench.root / "mail"
    for name in ("cur", "new", "tmp"):
        (folder / name).mkdir(parents=True)
    head = "Return-Path: <a@example.org>\nDelivered-To: b@example.org\n"
    (folder / "new" / "1.x").write_text(f"{head}Subject: x\n\nx\n")
    result = bench.run("drain", f"maildir:{folder}", "--no-check")
    assert result.code == 5
    assert "1 held: enhanced-5.7.60" in result.stdout
    assert "let this host send as its own senders" in " ".join(result.stdout.split())


def test_a_catch_all_is_a_warning(peer: StartPeer, bench: Bench) -> None:
    """The primary accepts anybody: reported, and ready all the same."""
    bench.port = peer().port
    result = check(bench, "--json")
    assert result.code == 0
    assert result.json["ready"] is True
    found = stages(result)["rcpt random"]
    assert found["verdict"] == "warn"
    assert "accepts any address" in found["hint"]


def test_without_a_known_good_recipient_it_warns(peer: StartPeer, bench: Bench) -> None:
    """A primary with an empty user table would look healthy."""
    bench.port = peer(rcpt=knows_good).port
    bench.configure(health={"accept": []})
    result = check(bench, "--json")
    assert result.code == 0
    assert stages(result)["rcpt known-good"]["verdict"] == "warn"
    assert "[health] accept" in stages(result)["rcpt known-good"]["hint"]


def test_without_any_domain_no_random_recipient_is_asked_for(
    peer: StartPeer, bench: Bench
) -> None:
    """It warns, and says what to set."""
    server = peer(rcpt=knows_good)
    bench.port = server.port
    bench.configure(health={"accept": []}, primary={"domains": []})
    result = check(bench, "--json")
    assert result.code == 0
    assert "[primary] domains" in stages(result)["rcpt random"]["hint"]
    assert "RCPT" not in verbs(server)


def test_the_random_recipient_may_be_left_out(peer: StartPeer, bench: Bench) -> None:
    """With reject = ""."""
    server = peer(rcpt=knows_good)
    bench.port = server.port
    bench.configure(health={"reject": ""})
    assert check(bench).code == 0
    assert verbs(server).count("RCPT") == 1


def test_a_connection_lost_at_the_random_recipient_is_no_refusal_of_it(
    peer: StartPeer, bench: Bench
) -> None:
    """A primary that breaks off is not ready."""

    def rcpt(view: View) -> Step:
        return "250 2.1.5 ok" if view.path == GOOD else Drop()

    bench.port = peer(rcpt=rcpt).port
    result = check(bench, "--json")
    assert result.code == 3
    assert stages(result)["rcpt random"]["verdict"] == "fail"


def test_the_random_recipient_is_another_one_each_time(
    peer: StartPeer, bench: Bench
) -> None:
    """So that nobody learns to refuse just that."""
    server = peer(rcpt=knows_good)
    bench.port = server.port
    check(bench)
    check(bench)
    asked = {c.line for c in server.commands if c.line.startswith(b"RCPT")}
    assert len(asked) == 3


def test_one_address_of_several_that_does_not_answer_is_a_warning(
    peer: StartPeer, bench: Bench
) -> None:
    """Every address is asked; one that answers is enough."""
    bench.port = peer(rcpt=knows_good).port
    bench.configure(primary={"host": "localhost"})
    result = check(bench, "--json")
    assert result.code == 0
    connects = [s for s in result.json["stages"] if s["stage"] == "connect"]
    assert {s["verdict"] for s in connects} <= {"ok", "warn"}
    assert [s["verdict"] for s in connects].count("ok") == 1


# ---- a loop


@pytest.mark.parametrize(
    "script",
    [
        {"banner": "220 backup.example ESMTP"},
        {"banner": "220 BACKUP.example. ESMTP"},
        {"name": "backup.example"},
        {"name": "Backup.Example."},
    ],
    ids=["banner", "banner-in-capitals", "ehlo", "ehlo-in-capitals"],
)
def test_our_own_name_there_is_a_loop(
    peer: StartPeer, bench: Bench, script: dict[str, Any]
) -> None:
    """Exit 2, and no further word: check and drain alike."""
    server = peer(**script)
    bench.port = server.port
    result = check(bench, "--json")
    assert result.code == 2
    assert result.json["loop"] is True
    assert "loop" in result.stderr
    bench.add("alice@example.org")
    assert bench.drain(check=True).code == 2
    assert "MAIL" not in verbs(server)


def test_a_name_that_only_begins_like_ours_is_no_loop(
    peer: StartPeer, bench: Bench
) -> None:
    """backup.example.org is somebody else."""
    bench.port = peer(rcpt=knows_good, name="backup.example.org").port
    assert check(bench).code == 0


# ---- the breaker of a drain


@pytest.mark.parametrize("name", ["banner-554", "ehlo-550", "mail-550", "rcpt-550"])
def test_a_drain_to_a_primary_that_is_not_ready_sends_nothing(
    peer: StartPeer, bench: Bench, name: str
) -> None:
    """Exit 3; with --no-check it tries, and judges by what it then meets."""
    server = peer(**FAILING[name][0])
    bench.port = server.port
    bench.add("alice@example.org")
    result = bench.drain(check=True)
    assert result.code == 3
    assert "is not ready" in result.stderr
    assert "DATA" not in verbs(server)
    assert b"RCPT TO:<alice@example.org>" not in [c.line for c in server.commands]
    assert set(bench.states().values()) <= {"pending"}
    bench.assert_balanced()


def test_a_drain_to_a_healthy_primary_checks_first(
    peer: StartPeer, bench: Bench
) -> None:
    """And then sends: exit 0."""

    def rcpt(view: View) -> Step:
        alice = view.path == "alice@example.org"
        return "250 2.1.5 ok" if alice else knows_good(view)

    server = peer(rcpt=rcpt)
    bench.port = server.port
    bench.add("alice@example.org")
    assert bench.drain(check=True).code == 0
    assert bench.states() == {"alice@example.org": "delivered"}
    assert len(server.accepted) == 1


def test_no_primary_is_a_mistake_of_usage(tmp_path: Path) -> None:
    """With what to give."""
    (tmp_path / "drainer.toml").write_text("")
    result = call("check", "--config", tmp_path / "drainer.toml")
    assert result.code == 2
    assert "no primary is named" in result.stderr
    assert "--to HOST[:PORT]" in result.stderr
