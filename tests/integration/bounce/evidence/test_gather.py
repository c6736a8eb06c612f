"""What is gathered about a sender: DNS, DMARC, the backup's results, the process."""

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from msgspec.structs import replace

from drainer.bounce.evidence import dmarc
from drainer.bounce.evidence.authres import claims_of
from drainer.bounce.evidence.client import EvidenceWorker, _Process
from drainer.bounce.evidence.dns import MAX_RECORDS, DnsOutcome, Resolver
from drainer.bounce.evidence.gather import gather
from drainer.bounce.evidence.mx import reach_of
from drainer.bounce.evidence.request import (
    MAX_HEADER_BYTES,
    DnsServers,
    EvidenceSettings,
    SenderQuestion,
)
from drainer.errors import UsageError
from drainer.mail.envelope import Recipient
from drainer.mail.mailbox import ascii_domain
from drainer.policy.bounce.evidence import judge
from drainer.policy.bounce.facts import (
    DmarcPolicy,
    Reachability,
    SenderFacts,
    Strength,
    TrustSettings,
)
from drainer.runtime.ipc import encode
from drainer.runtime.public_suffixes import organisation_of
from tests.integration.bounce.evidence.test_dkim import MESSAGE, PUBLIC, sign
from tests.support.dns.zones import SERVFAIL, TIMEOUT, Records, Zone, serving, zone_of
from tests.support.mta.postfix import wait_until

NOW: Final = datetime.now(UTC)
RECIPIENT: Final = Recipient(forward_path="anna@primary.example")


# ---- DNS


def test_absence_and_trouble_are_told_apart() -> None:
    """NXDOMAIN, no such record, SERVFAIL, silence, nonsense."""
    zone = (
        Zone()
        .add("here.example", "A", "192.0.2.1")
        .add("sick.example", SERVFAIL)
        .add("silent.example", TIMEOUT)
        .add("alias.example", "CNAME", "here.example")
        .add("loop.example", "CNAME", "loop.example")
    )
    with serving(zone, timeout=0.2) as servers:
        dns = Resolver(servers)
        outcomes = {
            name: dns.ask(f"{name}.example", "A").outcome
            for name in ("here", "alias", "absent", "sick", "silent", "loop")
        }
        assert dns.ask("here.example", "MX").outcome is DnsOutcome.ABSENT
        assert dns.ask("a..example", "A").outcome is DnsOutcome.NXDOMAIN
        assert dns.ask("x" * 64 + ".example", "A").outcome is DnsOutcome.NXDOMAIN
        assert dns.ask("", "A").outcome is DnsOutcome.NXDOMAIN
    assert outcomes == {
        "here": DnsOutcome.FOUND,
        "alias": DnsOutcome.FOUND,
        "absent": DnsOutcome.NXDOMAIN,
        "sick": DnsOutcome.FAILED,
        "silent": DnsOutcome.FAILED,
        "loop": DnsOutcome.ABSENT,
    }


def test_nobody_there_is_trouble() -> None:
    """A port that refuses is no absence."""
    with serving(Zone()) as servers:
        pass
    gone = Resolver(replace(servers, timeout=0.3))
    assert gone.ask("sender.example", "A").outcome is DnsOutcome.FAILED


def test_a_question_is_asked_once() -> None:
    """The cache holds for a run, in any case of letters, for failures as well."""
    zone = Zone().add("here.example", "A", "192.0.2.1").add("sick.example", SERVFAIL)
    with serving(zone) as servers:
        dns = Resolver(servers)
        for _ in range(3):
            dns.ask("here.example", "A")
            dns.ask("HERE.example.", "A")
            dns.ask("sick.example", "A")
            dns.ask("absent.example", "A")
    assert len(zone.asked) == 3


def test_the_time_for_a_message_is_bounded() -> None:
    """Many names that nobody answers for cannot hold up a drain."""
    zone = zone_of({f"n{n}.example": [(TIMEOUT, "")] for n in range(50)})
    with serving(zone) as servers:
        dns = Resolver(replace(servers, timeout=0.2, budget=0.5))
        answers = [dns.ask(f"n{n}.example", "A") for n in range(50)]
        assert {answer.outcome for answer in answers} == {DnsOutcome.FAILED}
        assert len(zone.asked) < 10
        dns.begin()
        assert "no time" not in dns.ask("n49.example", "A").detail


def test_an_answer_that_is_too_large_is_none() -> None:
    """Hundreds of records, or a long one over TCP."""
    zone = zone_of(
        {
            "many.example": [("TXT", f"{n}") for n in range(MAX_RECORDS + 1)],
            "long.example": [("TXT", "x" * 5000)],
        }
    )
    with serving(zone) as servers:
        dns = Resolver(servers)
        assert dns.ask("many.example", "TXT").outcome is DnsOutcome.FAILED
        assert dns.ask("long.example", "TXT").records == (b"x" * 5000,)


def test_a_bad_server_address_is_reported() -> None:
    """Before anything is decided by its silence."""
    with pytest.raises(UsageError, match="DNS server"):
        Resolver(DnsServers(addresses=("ns.example",)))


# ---- domains


@pytest.mark.parametrize(
    ("domain", "organisation"),
    [
        ("sender.example", "sender.example"),
        ("a.b.sender.example", "sender.example"),
        ("mail.example.co.uk", "example.co.uk"),
        ("victim.com-evil.org", "com-evil.org"),
        ("me.github.io", "me.github.io"),
        ("co.uk", "co.uk"),
        ("", ""),
    ],
)
def test_organisational_domains(domain: str, organisation: str) -> None:
    """By the public suffix list, its private part included: those are co-tenants."""
    assert organisation_of(domain) == organisation


@pytest.mark.parametrize(
    ("domain", "name"),
    [
        ("Sender.Example.", "sender.example"),
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("stra\u00dfe.example", "xn--strae-oqa.example"),
        ("a\ufffd.example", ""),
        ("[192.0.2.1]", ""),
        ("a..b", ""),
        ("x" * 64 + ".example", ""),
        (".".join(["abcdefgh"] * 40), ""),
        ("a b.example", ""),
        ("a\r\nb.example", ""),
        ("", ""),
    ],
)
def test_domains_in_ascii(domain: str, name: str) -> None:
    """What is no DNS name is none, and is never asked for."""
    assert ascii_domain(domain) == name


# ---- whether mail can be sent there


@pytest.mark.parametrize(
    ("records", "reach"),
    [
        ({"d.example": [("MX", "10 mx.example")], "mx.example": [("A", "192.0.2.1")]},
         Reachability.YES),
        ({"d.example": [("MX", "10 mx.example")],
          "mx.example": [("AAAA", "2001:db8::1")]}, Reachability.YES),
        ({"d.example": [("A", "192.0.2.1")]}, Reachability.YES),
        ({}, Reachability.NXDOMAIN),
        ({"d.example": [("MX", "0 .")]}, Reachability.NULL_MX),
        ({"d.example": [("TXT", "x")]}, Reachability.NO_ADDRESS),
        ({"d.example": [("MX", "10 gone.example")]}, Reachability.NO_ADDRESS),
        ({"d.example": [("MX", "10 mx.example")], "mx.example": [("A", "10.0.0.1")]},
         Reachability.OURS),
        ({"d.example": [("MX", "10 mx.example")], "mx.example": [("A", "127.0.0.1")]},
         Reachability.OURS),
        ({"d.example": [("MX", "10 mx.example")],
          "mx.example": [("AAAA", "64:ff9b::c000:201"), ("AAAA", "2002:c000:201::1")]},
         Reachability.OURS),
        ({"d.example": [("MX", "10 mx2.example")],
          "mx2.example": [("A", "198.51.100.1")]}, Reachability.OURS),
        ({"d.example": [("MX", "10 other.example")],
          "other.example": [("A", "198.51.100.1")],
          "mx2.example": [("A", "198.51.100.1")]}, Reachability.OURS),
        ({"d.example": [("MX", "10 mx.example"), ("MX", "20 b.example")],
          "mx.example": [("A", "10.0.0.1")], "b.example": [("A", "192.0.2.1")]},
         Reachability.YES),
        ({"d.example": [(SERVFAIL, "")]}, Reachability.LATER),
        ({"d.example": [("MX", "10 mx.example")], "mx.example": [(SERVFAIL, "")]},
         Reachability.LATER),
    ],
)  # fmt: skip
def test_reach(records: dict[str, Records], reach: Reachability) -> None:
    """Rule G12, as DNS answers."""
    with serving(zone_of(records)) as servers:
        own = frozenset(("mx2.example", "unknown.example"))
        assert reach_of(Resolver(servers), "d.example", own=own) is reach


# ---- DMARC


@pytest.mark.parametrize(
    ("fields", "records", "published", "words"),
    [
        (b"From: a@sender.example", {"_dmarc.sender.example": "v=DMARC1; p=none"},
         True, ""),
        (b'From: "B, C" <a@mail.sender.example>',
         {"_dmarc.sender.example": "v=DMARC1;p=reject; adkim=s; aspf=s"}, True, ""),
        (b"From: a@sender.example", {}, False, "no policy"),
        (b"From: a@sender.example", {"_dmarc.sender.example": "v=DMARC1; p=maybe"},
         False, ""),
        (b"From: a@sender.example", {"_dmarc.sender.example": "v=DMARC2; p=none"},
         False, "no policy"),
        (b"From: a@sender.example, b@x.example", {}, False, "one author"),
        (b"From: a@sender.example\r\nFrom: b@x.example", {}, False, "one author"),
        (b"Subject: x", {}, False, "one author"),
        (b"From: " + b"a@x.example, " * 500, {}, False, "one author"),
        (b"From: a@b@sender.example", {}, False, "one author"),
        (b"From: " + b"(" * 1500, {}, False, "one author"),
    ],
)  # fmt: skip
def test_dmarc(
    fields: bytes,
    records: dict[str, str],
    published: bool,  # noqa: FBT001
    words: str,
) -> None:
    """A policy of the one author's domain, or of its organisation."""
    zone = zone_of({name: [("TXT", text)] for name, text in records.items()})
    with serving(zone) as servers:
        found = dmarc.look(Resolver(servers), fields + b"\r\n")
    assert found.published is published
    assert words in found.detail


def test_dmarc_is_strict_only_where_it_says_so() -> None:
    """Alignment is relaxed by default (RFC 7489 3.1)."""
    text = "v=DMARC1; p=none; adkim=s; aspf=r"
    with serving(zone_of({"_dmarc.sender.example": [("TXT", text)]})) as servers:
        found = dmarc.look(Resolver(servers), b"From: a@sender.example\r\n")
    assert found == DmarcPolicy(
        domain="sender.example",
        organisation="sender.example",
        published=True,
        strict_dkim=True,
    )


def test_a_policy_that_nobody_tells_may_be_strict() -> None:
    """SERVFAIL is no absence here either."""
    zone = Zone().add("_dmarc.sender.example", SERVFAIL)
    with serving(zone) as servers:
        found = dmarc.look(Resolver(servers), b"From: a@sender.example\r\n")
    assert (found.published, found.later) == (False, True)


# ---- Authentication-Results

OWN: Final = (
    b"Received: from client.example by mx2.example with ESMTP;"
    b" Tue, 24 Nov 2026 10:00:00 +0000\r\n"
)
OTHER: Final = b"Received: from x by other.example; x\r\n"
PASS: Final = b"Authentication-Results: MX2.example; spf=pass smtp.mailfrom="
IDS: Final = frozenset(("mx2.example",))


def claims(head: bytes) -> list[tuple[str, str]]:
    """Return what is claimed, as (method, domain)."""
    found, _ = claims_of(head, authserv_ids=IDS)
    return [(claim.method, claim.domain) for claim in found]


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (PASS + b"bob@sender.example\r\n" + OWN, [("spf", "sender.example")]),
        (PASS + b"sender.example\r\n" + OWN, [("spf", "sender.example")]),
        (b"Authentication-Results: mx2.example 1;\r\n\tdkim=pass (ok)\r\n"
         b"\theader.d=Sender.example;\r\n dmarc=pass header.from=sender.example\r\n"
         + OWN, [("dkim", "sender.example"), ("dmarc", "sender.example")]),
        (b"Authentication-Results: mx2.example; dkim=pass header.i=@sender.example\r\n"
         + OWN, [("dkim", "sender.example")]),
        # below the topmost Received: it came with the message
        (OWN + PASS + b"bob@sender.example\r\n", []),
        (OTHER + PASS + b"a@sender.example\r\n" + OWN, []),
        (OWN + PASS + b"a@sender.example\r\n" + OWN, []),
        (b"RECEIVED : from x\r\n\tby y; z\r\n" + PASS + b"a@sender.example\r\n" + OWN,
         []),
        # above it, whatever it is called, folded, with comments
        (PASS + b"bob@sender.example\r\n" + OTHER, [("spf", "sender.example")]),
        (b"authentication-results:\r\n MX2.Example\r\n\t1;\r\n"
         b" spf=pass (why) smtp.mailfrom=bob@sender.example\r\n" + OTHER,
         [("spf", "sender.example")]),
        # no Received at all
        (PASS + b"bob@sender.example\r\n", []),
        # another's, another version
        (b"Authentication-Results: evil.example; spf=pass smtp.mailfrom=x.example\r\n"
         + OWN, []),
        (b"Authentication-Results: mx2.example.evil.example; spf=pass"
         b" smtp.mailfrom=x.example\r\n" + OWN, []),
        (b"Authentication-Results: mx2.example 2; spf=pass smtp.mailfrom=x.example\r\n"
         + OWN, []),
        # no word about whom, other results
        (b"Authentication-Results: mx2.example; spf=pass\r\n" + OWN, []),
        (b"Authentication-Results: mx2.example; spf=pass smtp.helo=x.example\r\n"
         + OWN, []),
        (b"Authentication-Results: mx2.example; spf=softfail"
         b" smtp.mailfrom=x.example\r\n" + OWN, []),
        (b"Authentication-Results: mx2.example; none\r\n" + OWN, []),
        # contradictions
        (PASS + b"a@sender.example\r\nAuthentication-Results: mx2.example; spf=fail"
         b" smtp.mailfrom=a@sender.example\r\n" + OWN, []),
        # what cannot be read
        (b"Authentication-Results: mx2.example; spf=\r\n" + OWN, []),
        (PASS + b"a@sender.example\r\nAuthentication-Results: ;;\r\n" + OWN, []),
        (PASS + b"a@sender.example " + b"(" * 5000 + b"\r\n" + OWN, []),
        (PASS + b"a@sender.example " + b"(x) " * 5000 + b"\r\n" + OWN, []),
        (PASS + b"a@sender.example\x00\r\n" + OWN, []),
        ((PASS + b"a@sender.example\r\n") * 20 + OWN, []),
    ],
)  # fmt: skip
def test_authentication_results(head: bytes, expected: list[tuple[str, str]]) -> None:
    """Only the backup's own, and only what they say of whom."""
    assert claims(head) == expected


def test_nested_comments_exhaust_no_stack() -> None:
    """Authres recurses for each."""
    deep = PASS + b"a@sender.example " + b"(" * 3000 + b")" * 3000 + b"\r\n" + OWN
    found, why = claims_of(deep, authserv_ids=IDS)
    assert found == () or [claim.method for claim in found] == ["spf"]
    assert found or why == "a field does not parse"


def test_nobody_is_trusted_by_default() -> None:
    """The operator must assert that forged fields are removed at the border."""
    found, why = claims_of(
        PASS + b"a@sender.example\r\n" + OWN,
        authserv_ids=frozenset(),
    )
    assert (found, "authserv_ids" in why) == ((), True)


# ---- all of it


def asked(
    zone: Zone, content: bytes = MESSAGE, sender: str = "bob@sender.example"
) -> SenderFacts:
    """Gather the facts in this process."""
    with serving(zone, timeout=1) as servers:
        settings = EvidenceSettings(
            servers=servers, authserv_ids=IDS, hostname="mx2.example"
        )
        return gather(Resolver(servers), settings, question(content, sender))


def question(
    content: bytes = MESSAGE, sender: str = "bob@sender.example", **more: Any
) -> SenderQuestion:
    """Return a message as the spool has it."""
    given: dict[str, Any] = {
        "client": "192.0.2.1",
        "helo": "client.example",
        "arrived": NOW,
    }
    return SenderQuestion(reverse_path=sender, content=content, **(given | more))


SIGNED: Final = zone_of({"test._domainkey.sender.example": [("TXT", PUBLIC)]}).add(
    "sender.example", "A", "192.0.2.9"
)


def test_a_signed_message_is_proven() -> None:
    """From the bytes to the verdict."""
    facts = asked(SIGNED, sign())
    evidence = judge(facts, RECIPIENT, TrustSettings())
    assert (evidence.strength, evidence.by) == (Strength.PROVEN, "V4")
    assert facts.reach is Reachability.YES


def test_a_signature_of_a_lookalike_proves_nothing() -> None:
    """victim.com-evil.org, as authheaders had it."""
    message = sign().replace(b"d=sender.example", b"d=sender.example-evil.example")
    evidence = judge(asked(SIGNED, message), RECIPIENT, TrustSettings())
    assert evidence.strength is Strength.NOT


def test_an_immense_header_is_not_looked_at() -> None:
    """It says so."""
    content = b"X: " + b"y" * MAX_HEADER_BYTES + b"\r\n" + sign()
    evidence = judge(asked(SIGNED, content), RECIPIENT, TrustSettings())
    assert evidence["V4"].found == "the header is too large"


def test_a_message_that_was_cut_has_no_signature() -> None:
    """Its body is unknown."""
    with serving(SIGNED) as servers:
        settings = EvidenceSettings(servers=servers)
        facts = gather(Resolver(servers), settings, replace(question(sign()), cut=True))
    assert judge(facts, RECIPIENT, TrustSettings())["V4"].found.startswith(
        "larger than"
    )


def test_a_malformed_message_is_reported() -> None:
    """Not raised."""
    facts = asked(SIGNED, b"no header\r\n\r\nbody\r\n")
    assert "odd line" in judge(facts, RECIPIENT, TrustSettings())["V4"].found


def test_a_null_sender_asks_nobody() -> None:
    """There is nobody to be told."""
    zone = Zone()
    facts = asked(zone, sender="")
    assert (facts.domain, zone.asked) == ("", [])


# ---- the process


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end."""
    return asyncio.run(coroutine)


def test_the_process_answers_as_we_would() -> None:
    """Several messages, one process."""
    with serving(SIGNED) as servers:
        settings = EvidenceSettings(servers=servers)
        here = gather(Resolver(servers), settings, question(sign()))

        async def ask() -> list[SenderFacts]:
            async with EvidenceWorker(settings) as checks:
                both = checks.facts(question(sign())), checks.facts(question(sender=""))
                return list(await asyncio.gather(*both))

        there, null = run(ask())
    assert there == here
    assert null.reverse_path == ""


def test_a_check_that_takes_too_long_is_killed() -> None:
    """The message has no evidence."""
    with serving(SIGNED) as servers:

        async def ask() -> SenderFacts:
            settings = EvidenceSettings(servers=replace(servers, budget=0.0005))
            async with EvidenceWorker(settings, compute_seconds=0.0005) as checks:
                return await checks.facts(question(sign()))

        late = run(ask())
    assert "took too long" in judge(late, RECIPIENT, TrustSettings()).words["V3"]
    assert late.reach is Reachability.LATER


def test_a_process_that_dies_is_replaced() -> None:
    """Whatever killed it: what it had not answered is asked again."""
    with serving(SIGNED) as servers:

        async def ask() -> list[SenderFacts]:
            async with EvidenceWorker(EvidenceSettings(servers=servers)) as checks:
                first = await checks.facts(question())
                os.kill(process_of(checks).pid, signal.SIGKILL)
                return [first, await checks.facts(question())]

        first, second = run(ask())
    assert first == second
    assert second.reach is Reachability.YES


def test_a_wrong_setting_reaches_the_caller() -> None:
    """With its hint."""

    async def ask() -> None:
        async with EvidenceWorker(
            EvidenceSettings(servers=DnsServers(addresses=("x",)))
        ) as checks:
            await checks.facts(question())

    with pytest.raises(UsageError, match="DNS server") as raised:
        run(ask())
    assert "dns_servers" in raised.value.hint


def test_a_cancellation_is_not_lost_to_an_answer() -> None:
    """Else a drain that ends would wait for its evidence for ever."""
    asked = 0

    async def ask(checks: EvidenceWorker) -> None:
        nonlocal asked
        for _ in range(9):
            asked += 1
            await checks.facts(question(sender=""))

    async def cancel_at_the_answer() -> None:
        async with EvidenceWorker(EvidenceSettings()) as checks:
            facts = await checks.facts(question(sender=""))
            task = asyncio.create_task(ask(checks))
            await asyncio.sleep(0)  # it has asked
            (answer,) = process_of(checks)._waiting.values()
            answer.set_result(encode(facts))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(cancel_at_the_answer())
    assert asked == 1


def process_of(checks: EvidenceWorker) -> _Process:
    """Return the evidence process that runs."""
    assert checks._process is not None
    return checks._process.result()


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has forked."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
    return [int(each) for each in text.split()]


def until(holds: Callable[[], object]) -> None:
    """Wait until it holds."""
    wait_until(lambda: bool(holds()), timeout=10, what="a process of a message")


def test_cancelling_leaves_no_process() -> None:
    """Neither that of the message, nor, at the end, the evidence process."""
    with serving(zone_of({"sender.example": [(TIMEOUT, "")]})) as servers:

        async def ask() -> int:
            async with EvidenceWorker(EvidenceSettings(servers=servers)) as checks:
                await checks.facts(question(sender=""))  # asks no DNS
                pid = process_of(checks).pid
                task = asyncio.create_task(checks.facts(question()))
                await asyncio.to_thread(until, lambda: children_of(pid))
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await asyncio.to_thread(until, lambda: not children_of(pid))
                return pid

        pid = run(ask())
    assert not Path(f"/proc/{pid}").exists()


def test_the_processes_of_messages_end_with_the_evidence_process() -> None:
    """The kernel ends them, even if they compute and look at no link."""
    zone = zone_of({"sender.example": [(TIMEOUT, "")]})
    with serving(zone) as servers:

        async def ask() -> None:
            async with EvidenceWorker(EvidenceSettings(servers=servers)) as checks:
                await checks.facts(question(sender=""))
                pid = process_of(checks).pid
                task = asyncio.create_task(checks.facts(question()))
                # It has asked, so it has told the kernel to end it with its parent.
                await asyncio.to_thread(until, lambda: zone.asked)
                (child,) = children_of(pid)
                os.kill(child, signal.SIGSTOP)  # it sees no end of its link
                os.kill(pid, signal.SIGKILL)
                await asyncio.to_thread(until, lambda: not is_alive(child))
                task.cancel()

        run(ask())


def is_alive(pid: int) -> bool:
    """Whether a process runs or is stopped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"
