"""No report goes to a mailbox whose owner did not send the mail.

The attacker has an account at a provider and a DNS of his own. He knows addresses at
the backup that the primary refuses. Each test tries a trick in several variants in one
drain, beside honest mail that does get its report: so that each can fail.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import dkim as dkimpy
import pytest

from drainer.bounce.evidence import dkim
from drainer.bounce.evidence.dns import Resolver
from drainer.bounce.evidence.mx import relays_of
from drainer.bounce.evidence.request import DnsServers
from drainer.policy.bounce.facts import DkimSignature, Strength
from tests.integration.bounce.evidence.test_dkim import KEY, PUBLIC
from tests.support.command.runner import Bench, call
from tests.support.dns.zones import Zone, serving
from tests.support.scenarios.bounces import BOB, Refusing, nobody_unknown, refusing
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Script

StartPeer = Callable[..., PeerThread]

ELSEWHERE: Final = "203.0.113.66"
"""The attacker's own host: no SPF record names it."""
SPAM: Final = b"buy my pills at evil.example\n"
EVE: Final = "eve@sender.example"


class _Timeless(dkimpy.DKIM):  # type: ignore[misc] # dkimpy has no types
    """Signs without t=: the mail of a bench arrived on a certain day."""

    def gen_header(self, fields: Any, *more: Any, **named: Any) -> Any:
        """Leave the time out."""
        timeless = [field for field in fields if field[0] != b"t"]
        return super().gen_header(timeless, *more, **named)


def signed(
    *fields: str,
    domain: str = "sender.example",
    names: tuple[bytes, ...] = (b"from", b"to", b"subject"),
    **more: Any,
) -> bytes:
    """Return spam with these fields, and the provider's signature of them."""
    head = "".join(f"{field}\r\n" for field in (*fields, "Subject: pills"))
    message = head.encode() + b"\r\n" + SPAM.replace(b"\n", b"\r\n")
    field = _Timeless(message).sign(
        b"test",
        domain.encode(),
        KEY,
        canonicalize=(b"relaxed", b"relaxed"),
        include_headers=names,
        **more,
    )
    return (bytes(field) + message).replace(b"\r\n", b"\n")


@dataclass(slots=True, kw_only=True)
class Mail:
    """One message of the backup, and what its client said."""

    sender: str
    text: bytes = b"Subject: x\n\n" + SPAM
    #: The address of a host of sender.example.
    client: str = "192.0.2.1"
    #: '' = an address that the primary does not know.
    recipient: str = ""
    orcpt: str = ""
    login: str = ""
    ret: str = "FULL"


class Backup:
    """A backup whose spool is a database, which keeps addresses as they were sent."""

    def __init__(self, bench: Refusing) -> None:
        """Make the spool."""
        self.bench = bench
        self.zone = bench.zone
        self._path = bench.root / "spool.db"
        self._count = 0
        assert call("spool", "create", self.url).code == 0

    @property
    def servers(self) -> DnsServers:
        """The DNS servers of the configuration."""
        port = self.bench.settings["bounce"]["dns_port"]
        assert isinstance(port, int)
        return DnsServers(addresses=("127.0.0.1",), port=port)

    @property
    def url(self) -> str:
        """The source."""
        return f"sqlite:///{self._path}"

    def take(self, *mails: Mail) -> None:
        """Accept mail for recipients that the primary does not know."""
        with closing(sqlite3.connect(self._path)) as spool, spool:
            for mail in mails:
                self._count += 1
                self._insert(spool, mail)

    def _insert(self, spool: sqlite3.Connection, mail: Mail) -> None:
        now = time.time_ns() // 1000
        names = "message_id, arrived, reverse_path, content, client_address, login, ret"
        row = spool.execute(
            f"INSERT INTO drainer_spool ({names}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            (
                f"m{self._count}", now, mail.sender, mail.text, mail.client,
                mail.login, mail.ret,
            ),
        )  # fmt: skip
        path = mail.recipient or f"nobody-{self._count}@example.org"
        spool.execute(
            "INSERT INTO drainer_spool_recipients"
            " (message, n, forward_path, orcpt, notify) VALUES (?, 0, ?, ?, '')",
            (row.lastrowid, path, mail.orcpt),
        )

    def reported(self) -> list[str]:
        """Drain until all is final; return who got a report, as in the alphabet."""
        for _ in range(20):  # what was not due in one drain is in the next
            if self.bench.run("drain", self.url, "--no-check").code == 0:
                break
        states = self.bench.states()
        assert len(states) == self._count
        assert set(states.values()) <= {"bounced", "quarantined"}, states
        return sorted(r.forward_paths[0] for r in self.bench.reports)

    def returned(self) -> list[str]:
        """Return who got the whole original with it."""
        reports = self.bench.reports
        return sorted(
            each.forward_paths[0]
            for each in reports
            if SPAM.strip() in (each.content or b"")
        )


@pytest.fixture
def backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, peer: StartPeer
) -> Iterator[Backup]:
    """Give a backup, its primary, a relay for reports, and a provider with a key."""
    monkeypatch.chdir(tmp_path)
    with refusing(tmp_path, peer(), peer(Script(rcpt=nobody_unknown))) as made:
        made.configure(breaker={"brake_share": 1, "brake_least": 1000})
        made.zone.add("test._domainkey.sender.example", "TXT", PUBLIC)
        for name in ("mail.sender.example", "brand.example"):
            made.zone.add(name, "MX", "10 mx.sender.example")
        yield Backup(made)


# ---- one signed mail, and whatever stands in its envelope


def test_one_signed_mail_gives_no_report_to_other_mailboxes(backup: Backup) -> None:
    """However the victim is written, and whatever the client says of the recipient."""
    victims = (
        "victim@sender.example",
        '"victim"@sender.example',
        '"v\\ictim"@sender.example',
        "Victim@Sender.Example.",
        "victim+eve@sender.example",
        "victim@mail.sender.example",
        "eve@mail.sender.example",
        "EVE@sender.example",
        "eve+victim@sender.example",
        "prvs=0123456789=victim@sender.example",
        "SRS0=HHH=TT=sender.example=eve@sender.example",
        '"eve@sender.example"@sender.example',
    )
    replayed = signed(f"From: Eve <{EVE}>", "To: eve@evil.example")
    for n, victim in enumerate(victims):
        path = f"nobody{n}@example.org"
        named = signed(f"From: Eve <{EVE}>", f"To: {path}")
        listed = "rfc822;eve@evil.example"
        backup.take(
            Mail(sender=victim, text=replayed, client=ELSEWHERE, orcpt=listed),
            Mail(sender=victim, text=named, client=ELSEWHERE, recipient=path),
        )
    own = signed(f"From: Eve <{EVE}>", "To: Nobody99@Example.org")
    path = "nobody99@example.org"
    backup.take(Mail(sender=EVE, text=own, client=ELSEWHERE, recipient=path))
    assert backup.reported() == [EVE]
    assert backup.returned() == []


def test_weak_evidence_does_not_add_up_for_another_mailbox(backup: Backup) -> None:
    """A customer of the domain's provider replays what a user of the domain signed."""
    backup.zone.records["sender.example"] = [
        ("TXT", "v=spf1 include:spf.provider.example -all"),
        ("MX", "10 mx.sender.example"),
    ]
    backup.zone.add("spf.provider.example", "TXT", "v=spf1 ip4:192.0.2.1 -all")
    others = signed(f"From: {EVE}", "To: eve@evil.example")
    own = signed("From: victim@sender.example", "To: eve@evil.example")
    unsigned = b"From: victim@sender.example\nSubject: pills\n\n" + SPAM
    backup.take(
        Mail(sender="victim@sender.example", text=others),
        Mail(sender="victim@sender.example", text=unsigned),
        Mail(sender="victim@sender.example", text=own, client=ELSEWHERE),
        Mail(sender=EVE, text=others),
    )
    assert backup.reported() == [EVE]
    assert backup.returned() == []


# ---- whom a signature vouches for


@pytest.fixture(scope="module")
def dns() -> Iterator[Resolver]:
    """Ask a server that has the provider's key, and one that is strict."""
    zone = Zone()
    for name in ("sender.example", "b\u00fccher.example".encode("idna").decode()):
        zone.add(f"test._domainkey.{name}", "TXT", PUBLIC)
    strict = PUBLIC.replace("v=DKIM1;", "v=DKIM1; t=s;")
    zone.add("strict._domainkey.sender.example", "TXT", strict)
    with serving(zone) as servers:
        yield Resolver(servers)


def one(dns: Resolver, message: bytes, owner: str = "sender.example") -> DkimSignature:
    """Return the only signature of a message."""
    content = message.replace(b"\n", b"\r\n")
    now = datetime.now(UTC)
    (found,) = dkim.check(dns, content, organisation=owner, arrived=now)
    return found


@pytest.mark.parametrize(
    ("field", "mailbox"),
    [
        ("From: bob@sender.example", BOB),
        ("From: Bob <bob@Sender.Example.>", BOB),
        ('From: "Bob, B. <victim@sender.example>" <bob@sender.example>', BOB),
        ('From: "b\\ob"@sender.example', BOB),
        ("From: =?utf-8?q?victim=40sender=2Eexample?= <bob@sender.example>", BOB),
        ("From:\r\n Bob\r\n <bob@sender.example>", BOB),
        ("From: bob@sender.example, victim@sender.example", ""),
        ("From: victim@sender.example <bob@sender.example>", ""),
        ("From: <bob@sender.example> <victim@sender.example>", ""),
        ("From: bob@sender.example (victim@sender.example)", ""),
        ("From: (bob@sender.example) victim@sender.example", ""),
        ("From: bob@sender.example: victim@sender.example;", ""),
        ("From: undisclosed: victim@sender.example;", ""),
        ("From: undisclosed:;", ""),
        ("From: <@sender.example:victim@sender.example>", ""),
        ("From: victim@sender.example,", ""),
        ("From: victim", ""),
        ("From: " + "x" * 3000 + " <victim@sender.example>", ""),
    ],
)
def test_a_signature_vouches_for_the_only_author(
    dns: Resolver, field: str, mailbox: str
) -> None:
    """Only where every program reads the same one address."""
    found = one(dns, signed(field, "To: anna@primary.example"))
    assert (found.state, found.mailbox) == (Strength.PROVEN, mailbox), found.detail


@pytest.mark.parametrize(
    ("identity", "mailbox"),
    [
        (b"@sender.example", BOB),
        (b"@mail.sender.example", BOB),
        (b"eve@sender.example", EVE),
        (b"eve@mail.sender.example", "eve@mail.sender.example"),
        (b"=65ve@sender.example", EVE),
        (b'"eve"@sender.example', EVE),
        (b"eve=40x@sender.example", "eve@x@sender.example"),
    ],
)
def test_the_identity_of_a_signature_outranks_from(
    dns: Resolver, identity: bytes, mailbox: str
) -> None:
    """Its local part is the signer's own word about who sent it (RFC 6376 3.5)."""
    text = signed(f"From: {BOB}", "To: anna@primary.example", identity=identity)
    found = one(dns, text)
    assert (found.state, found.mailbox) == (Strength.PROVEN, mailbox), found.detail


def test_two_from_fields_have_no_author(dns: Resolver) -> None:
    """Also where both are signed, or the second is written oddly."""
    both = signed(f"From: {EVE}", f"From: {BOB}", names=(b"from", b"from", b"to"))
    assert (one(dns, both).state, one(dns, both).mailbox) == (Strength.PROVEN, "")
    odd = b"From : victim@sender.example\n" + signed(f"From: {EVE}")
    assert one(dns, odd).mailbox == ""
    added = b"From: victim@sender.example\n" + signed(f"From: {EVE}")
    assert (one(dns, added).state, one(dns, added).mailbox) == (Strength.NOT, "")


def test_domains_of_a_signature_compare_as_a_labels(dns: Resolver) -> None:
    """The author may be written in Unicode, the domain of a signature is not."""
    name = "xn--bcher-kva.example"
    text = signed("From: bob@B\u00dcCHER.example", domain=name)
    assert one(dns, text, owner=name).mailbox == f"bob@{name}"


def test_below_a_domain_others_sign_for_themselves(backup: Backup) -> None:
    """A key of a subdomain proves nothing about the domain above, or beside."""
    backup.zone.add("test._domainkey.eve.sender.example", "TXT", PUBLIC)
    path = "nobody@example.org"
    for victim in ("victim@sender.example", "victim@mail.sender.example"):
        text = signed(f"From: {victim}", f"To: {path}", domain="eve.sender.example")
        backup.take(Mail(sender=victim, text=text, client=ELSEWHERE, recipient=path))
        path = "nobody2@example.org"
    sender, path = "bob@mail.sender.example", "nobody3@example.org"
    above = signed(f"From: {sender}", f"To: {path}")
    backup.take(Mail(sender=sender, text=above, client=ELSEWHERE, recipient=path))
    assert backup.reported() == [sender]


# ---- SPF of another organisation


@pytest.mark.parametrize("trusted", [(), ("Provider.example.",)])
def test_spf_of_another_organisation_proves_no_sender(
    backup: Backup, trusted: tuple[str, ...]
) -> None:
    """By include, redirect, MX, host or alias; unless the operator names it."""
    backup.bench.configure(bounce={"trusted_spf_domains": list(trusted)})
    zone = backup.zone
    zone.add("spf.provider.example", "TXT", "v=spf1 ip4:192.0.2.0/24 -all")
    zone.add("out.provider.example", "A", "192.0.2.1")
    ways = {
        "include": "v=spf1 include:spf.provider.example ~all",
        "redirect": "v=spf1 redirect=spf.provider.example",
        "chain": "v=spf1 include:_spf.chain.example -all",
        "host": "v=spf1 a:out.provider.example -all",
        "mx": "v=spf1 mx -all",
        "alias": "v=spf1 include:alias.alias.example -all",
    }
    zone.add("_spf.chain.example", "TXT", "v=spf1 redirect=spf.provider.example")
    zone.add("alias.alias.example", "CNAME", "spf.provider.example")
    for name, spf in ways.items():
        mx = "out.provider.example" if name == "mx" else "mx.sender.example"
        zone.add(f"{name}.example", "TXT", spf).add(f"{name}.example", "MX", f"1 {mx}")
    ceos = [f"ceo@{name}.example" for name in ways]
    backup.take(Mail(sender=BOB), *(Mail(sender=ceo) for ceo in ceos))
    assert backup.reported() == sorted([BOB, *ceos] if trusted else [BOB])
    assert backup.returned() == [BOB]


def test_only_own_proofs_return_the_original(backup: Backup) -> None:
    """A login, a trusted network, an address in the very domain's own record."""
    backup.bench.configure(bounce={"trusted_networks": ["203.0.113.99/32"]})
    zone = backup.zone
    zone.add("split.example", "TXT", "v=spf1 include:_spf.split.example -all")
    zone.add("_spf.split.example", "TXT", "v=spf1 ip4:192.0.2.1 -all")
    zone.add("split.example", "MX", "10 mx.sender.example")
    path = "nobody99@example.org"
    text = signed(f"From: {EVE}", f"To: {path}")
    backup.take(
        Mail(sender=BOB),
        Mail(sender="short@sender.example", ret="HDRS"),
        Mail(sender="in@sender.example", client=ELSEWHERE, login="in@sender.example"),
        Mail(sender="net@sender.example", client="203.0.113.99"),
        Mail(sender="ceo@split.example"),
        Mail(sender=EVE, text=text, client=ELSEWHERE, recipient=path),
    )
    full = [BOB, "in@sender.example", "net@sender.example"]
    assert backup.reported() == sorted(
        [*full, "short@sender.example", "ceo@split.example", EVE]
    )
    assert backup.returned() == full


# ---- how many reports


def test_one_mailbox_gets_the_reports_of_one(backup: Backup) -> None:
    """Quotes, case, dots, A-labels and tags make no other mailbox."""
    name = "b\u00fccher.example"
    encoded = name.encode("idna").decode()
    spellings = (
        (
            BOB, '"bob"@sender.example', '"b\\ob"@sender.example',
            "Bob@sender.example", "bob@SENDER.example", "bob@sender.example.",
            "bob+x@sender.example", '"bob+y"@sender.example', "BOB+x+z@sender.example",
        ),
        (f"bob@{name}", f"bob@{encoded}", f"bob@{encoded.upper()}", f"BOB@{name}."),
    )  # fmt: skip
    backup.zone.records[encoded] = backup.zone.records["sender.example"]
    backup.take(*(Mail(sender=each) for senders in spellings for each in senders))
    backup.take(Mail(sender="amy@sender.example"))
    found = backup.reported()
    for senders in spellings:
        assert len([each for each in found if each in senders]) == 3
    assert len(found) == 7
    backup.take(*(Mail(sender=f"bob+{n}@sender.example") for n in range(3)))
    assert len(backup.reported()) == 7


def test_names_below_a_domain_share_its_limit(backup: Backup) -> None:
    """Anybody can make as many names below a domain as there are mails."""
    backup.bench.configure(bounce={"domain_per_hour": 2})
    for n in range(4):
        name = f"n{n}.sender.example"
        backup.zone.records[name] = backup.zone.records["sender.example"]
        backup.take(Mail(sender=f"bob{n}@{name}"))
    backup.zone.records["other.example"] = backup.zone.records["sender.example"]
    backup.take(Mail(sender="bob@other.example"))
    assert len(backup.reported()) == 3


def test_tags_are_as_the_operator_sets_them(backup: Backup) -> None:
    """Without delimiters each tagged address has limits of its own."""
    configure = backup.bench.configure
    configure(bounce={"tag_delimiters": "", "sender_per_hour": 1})
    backup.take(*(Mail(sender=f"bob+{n}@sender.example") for n in range(3)))
    assert len(backup.reported()) == 3
    configure(bounce={"tag_delimiters": "+-", "sender_per_hour": 4})
    backup.take(*(Mail(sender=f"bob-{n}@sender.example") for n in range(3)))
    assert len(backup.reported()) == 4


# ---- domains of our own


@pytest.mark.parametrize("key", ["relay_domains", "domains"])
def test_own_domains_need_a_better_proof_than_spf(backup: Backup, key: str) -> None:
    """Below a suffix, in Unicode or as A-labels, with a dot at the end."""
    names = [".Example.net", "b\u00fccher.example", "XN--KSE-QLA.example."]
    if key == "domains":
        sharp = "stra\u00dfe.example"  # in IDNA 2008 it has a name of its own
        backup.bench.configure(primary={"domains": [*names, sharp, "example.org"]})
    else:
        backup.bench.configure(bounce={"relay_domains": names})
    domains = (
        "sub.example.net", "a.b.example.net.", "example.net", "b\u00fccher.example",
        "xn--bcher-kva.example", "k\u00e4se.example", "sub.XN--KSE-QLA.example",
        "notexample.net", *(["xn--strae-oqa.example"] * (key == "domains")),
    )  # fmt: skip
    for name in domains:
        dns_name = name.rstrip(".").encode("idna").decode().lower()
        backup.zone.records[dns_name] = backup.zone.records["sender.example"]
    backup.take(*(Mail(sender=f"boss@{name}") for name in domains))
    assert backup.reported() == ["boss@notexample.net"]


def test_a_recipient_s_own_domain_is_ours(backup: Backup) -> None:
    """Also where the configuration names no domain: the backup took mail for it."""
    backup.bench.configure(primary={"domains": []})
    senders = ("boss@example.org", "boss@Sub.Example.ORG", BOB)
    for domain in ("example.org", "sub.example.org"):
        backup.zone.records[domain] = backup.zone.records["sender.example"]
    backup.take(*(Mail(sender=sender) for sender in senders))
    assert backup.reported() == [BOB]


# ---- results that the backup did not write


def test_results_below_the_topmost_received_are_anybodys(backup: Backup) -> None:
    """Whatever name the forged fields bear, and whoever writes them."""
    backup.bench.configure(bounce={"authserv_ids": ["mx2.example"]})
    ours = b"Received: from x (x [203.0.113.66])\n\tby inner.example with ESMTP; now\n"
    forged = b"Received: from a by mx2.example with ESMTP; now\n"
    results = (
        b"Authentication-Results: mx2.example;\n\tspf=pass"
        b" smtp.mailfrom=sender.example;\n dkim=pass header.d=sender.example\n"
    )
    mail = b"From: victim@sender.example\nSubject: x\n\n" + SPAM
    tricks = (
        ours + results + forged + mail,
        ours + results + mail,
        ours + forged + results + ours + mail,
        ours.replace(b"Received:", b"RECEIVED :") + results + forged + mail,
        results + mail,
        results.replace(b"mx2.example", b"mx2.example.evil.example") + ours + mail,
        results + ours + mail.replace(b"victim", b"eve"),
        results + ours + b"From: eve@sender.example\n" + mail,
        results + ours + b"odd line\n" + mail,
        results.replace(b"header.d=", b"header.i=eve@") + ours + mail,
        results.replace(b"header.d=", b"header.d=eve.") + ours + mail,
        results.replace(b"mailfrom=", b"mailfrom=eve@") + ours + mail,
    )
    victim = "victim@sender.example"
    backup.take(*(Mail(sender=victim, text=t, client=ELSEWHERE) for t in tricks))
    honest = results + ours + mail.replace(b"victim", b"eve")
    backup.take(Mail(sender=EVE, text=honest, client=ELSEWHERE))
    assert backup.reported() == [EVE]
    assert backup.returned() == []


# ---- the configuration


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("tag_delimiters", "+a", "delimiters"),
        ("tag_delimiters", "@", "delimiters"),
        ("tag_delimiters", " ", "delimiters"),
        ("trusted_spf_domains", ["com"], "is a public suffix"),
        ("trusted_spf_domains", [".co.uk"], "is a public suffix"),
        ("trusted_spf_domains", ["*.provider.example"], "not a domain"),
        ("trusted_spf_domains", [""], "not a domain"),
        ("trusted_spf_domains", ["include:provider.example"], "not a domain"),
        ("relay_domains", ["*.example.org"], "not a domain"),
        ("relay_domains", ["a\ufffd.example"], "A-labels"),
    ],
)
def test_a_setting_that_would_trust_too_much_is_an_error(
    tmp_path: Path, key: str, value: object, words: str
) -> None:
    """Before anything is sent."""
    bench = Bench(tmp_path)
    bench.configure(bounce={key: value})
    result = bench.run("config")
    assert result.code == 2, result.stdout
    assert words in result.stderr
    assert key in result.stderr


# ---- where reports go


def test_reports_go_to_no_inner_address(backup: Backup) -> None:
    """Whatever an address embeds, and also when DNS changes after the decision."""
    backup.bench.configure(bounce={"via": "mx"})
    inner = {
        "nat64": "64:ff9b::7f00:1",
        "local-nat64": "64:ff9b:1::7f00:1",
        "six": "2002:7f00:1::1",
        "teredo": "2001:0:7f00:1::1",
        "site": "fec0::1",
        "mapped": "::ffff:192.0.2.9",
        "compatible": "::192.0.2.9",
        "bench": "198.18.0.25",
        "shared": "100.64.0.25",
        "protocol": "192.0.0.9",
    }
    dns = Resolver(backup.servers)
    for name, address in inner.items():
        domain, kind = f"{name}.example", "AAAA" if ":" in address else "A"
        backup.zone.add(domain, "TXT", "v=spf1 ip4:192.0.2.1 -all")
        backup.zone.add(domain, "MX", f"10 mx.{domain}")
        backup.zone.add(f"mx.{domain}", kind, address)
        assert relays_of(dns, domain, frozenset()).targets == ()
    assert relays_of(dns, "sender.example", frozenset()).targets
    backup.take(*(Mail(sender=f"ceo@{name}.example") for name in inner))
    assert backup.reported() == []
    assert set(backup.bench.states().values()) == {"quarantined"}
    by_rule = backup.bench.run("digest", "--json").json["not_told"]
    assert [(d["rule"], d["recipients"]) for d in by_rule] == [("G12", len(inner))]
