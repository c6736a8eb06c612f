"""DKIM as evidence, its keys in a real DNS server: known messages, and the traps."""

import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import dkim as dkimpy
import pytest
from dkim.canonicalization import Relaxed
from hypothesis import given
from hypothesis import strategies as st

from drainer.bounce.evidence import dkim, dkim_sign
from drainer.bounce.evidence.dns import Resolver
from drainer.bounce.evidence.request import DnsServers
from drainer.errors import UsageError
from drainer.policy.bounce.facts import DkimSignature, Strength
from tests.support.dns.zones import SERVFAIL, Zone, serving
from tests.support.paths import DATA

SAMPLES: Final = DATA / "dkim"
NOW: Final = datetime.now(UTC)
KEY: Final = (SAMPLES / "test.private").read_bytes()
PUBLIC: Final = (SAMPLES / "test.txt").read_text("ascii").strip()
ED25519: Final = (SAMPLES / "ed25519test.key").read_bytes().strip()
KEYS: Final = {
    "test._domainkey.football.example.com": PUBLIC,
    "brisbane._domainkey.football.example.com": "v=DKIM1; k=ed25519;"
    " p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "sed._domainkey.test.ex": (SAMPLES / "eximtest.dns").read_text("ascii"),
    "test._domainkey.sender.example": PUBLIC,
    "ed._domainkey.sender.example": (SAMPLES / "ed25519test.dns").read_text("ascii"),
    "weak._domainkey.sender.example": PUBLIC.replace("v=DKIM1;", "v=DKIM1; t=y;"),
    "strict._domainkey.sender.example": PUBLIC.replace("v=DKIM1;", "v=DKIM1; t=s;"),
    "sha1._domainkey.sender.example": PUBLIC.replace("v=DKIM1;", "v=DKIM1; h=sha1;"),
    "other._domainkey.sender.example": PUBLIC.replace("v=DKIM1;", "v=DKIM1; s=other;"),
    "gone._domainkey.sender.example": "v=DKIM1; p=",
    "next._domainkey.sender.example": PUBLIC.replace("DKIM1", "DKIM2"),
    "huge._domainkey.sender.example": "v=DKIM1; p=" + "A" * 4000,
    "odd._domainkey.sender.example": "v=DKIM1; nonsense; p=AAAA",
    "junk._domainkey.sender.example": "v=DKIM1; p=AAAA",
}
MESSAGE: Final = (
    b"From: Bob <bob@sender.example>\r\n"
    b"To: Anna <Anna@primary.example>, carl@primary.example\r\n"
    b"Subject: hello\r\n"
    b"Message-ID: <1@sender.example>\r\n"
    b"\r\n"
    b"Hello  you.  \r\n\r\n"
)


@pytest.fixture(scope="module")
def dns() -> Iterator[Resolver]:
    """Ask a server that has every key of this module."""
    zone = Zone()
    for name, record in KEYS.items():
        zone.add(name, "TXT", record)
    zone.add("two._domainkey.sender.example", "TXT", PUBLIC)
    zone.add("two._domainkey.sender.example", "TXT", PUBLIC.replace("g=*;", ""))
    zone.add("sick._domainkey.sender.example", SERVFAIL)
    with serving(zone) as servers:
        yield Resolver(servers)


def sign(
    message: bytes = MESSAGE,
    selector: str = "test",
    *,
    key: bytes = KEY,
    headers: tuple[bytes, ...] = (b"from", b"to", b"subject", b"from"),
    body: bytes = b"relaxed",
    **more: Any,
) -> bytes:
    """Return a message with a signature of sender.example on top."""
    signer = dkimpy.DKIM(message)
    field = signer.sign(
        selector.encode(),
        b"sender.example",
        key,
        canonicalize=(b"relaxed", body),
        include_headers=headers,
        **more,
    )
    return bytes(field) + message


def look(
    dns: Resolver,
    message: bytes,
    *,
    owner: str = "sender.example",
    arrived: datetime = NOW,
) -> tuple[DkimSignature, ...]:
    """Return the signatures, those of the owner verified."""
    return dkim.check(dns, message, organisation=owner, arrived=arrived)


def one(dns: Resolver, message: bytes, **more: Any) -> DkimSignature:
    """Return the only signature."""
    (found,) = look(dns, message, **more)
    return found


# ---- messages that others signed


@pytest.mark.parametrize(
    ("name", "owner", "count"),
    [
        ("rfc8463.msg", "example.com", 2),
        ("rfc6376.signed.msg", "example.com", 2),
        ("rfc6376.signed.rsa.msg", "example.com", 1),
        ("ed25519test2.msg", "test.ex", 1),
    ],
)
def test_known_messages(dns: Resolver, name: str, owner: str, count: int) -> None:
    """RFC 8463 appendix A, and the samples of dkimpy, Exim's among them."""
    message = (SAMPLES / name).read_bytes()
    message = message.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    found = look(dns, message, owner=owner)
    assert [s.state for s in found] == [Strength.PROVEN] * count, found


@pytest.mark.parametrize("body", [b"simple", b"relaxed"])
@pytest.mark.parametrize(
    ("selector", "key", "algorithm"),
    [("test", KEY, b"rsa-sha256"), ("ed", ED25519, b"ed25519-sha256")],
)
def test_a_signature_verifies(
    dns: Resolver, body: bytes, selector: str, key: bytes, algorithm: bytes
) -> None:
    """With both algorithms and canonical forms; one changed octet breaks it."""
    message = sign(selector=selector, key=key, body=body, signature_algorithm=algorithm)
    assert one(dns, message).state is Strength.PROVEN
    assert one(dns, message.replace(b"you", b"me!")).state is Strength.NOT
    assert one(dns, message.replace(b"hello", b"HELLO")).state is Strength.NOT


# ---- what proves nothing, though dkimpy would take it


def with_tag(message: bytes, tag: bytes) -> bytes:
    """Return a message whose signature has one more tag (so that it is broken)."""
    return message.replace(b"v=1;", b"v=1; " + tag + b";", 1)


def test_a_signature_with_l_proves_nothing(dns: Resolver) -> None:
    """Anything could be appended to the body."""
    message = sign(length=True)
    key = PUBLIC.encode()
    assert dkimpy.verify(message + b"evil\r\n", dnsfunc=lambda *_, **__: key)
    found = one(dns, message)
    assert (found.state, found.refused) == (Strength.NOT, True)
    assert "l=" in found.detail


def test_rsa_sha1_proves_nothing(dns: Resolver) -> None:
    """RFC 8301 3.1 forbids it."""
    message = sign(signature_algorithm=b"rsa-sha1")
    key = PUBLIC.encode()
    assert dkimpy.verify(message, dnsfunc=lambda *_, **__: key)
    found = one(dns, message)
    assert (found.state, found.refused) == (Strength.NOT, True)


@pytest.mark.parametrize(
    ("selector", "words", "refused"),
    [
        ("weak", "testing", True),
        ("sha1", "not for this use", True),
        ("other", "not for this use", True),
        ("gone", "revoked", False),
        ("next", "version", False),
        ("two", "several keys", False),
        ("absent", "no key", False),
        ("huge", "too long", False),
        ("odd", "unreadable key", False),
        ("junk", "", False),
        ("ed", "a key for ed25519", False),
    ],
)
def test_a_key_that_proves_nothing(
    dns: Resolver,
    selector: str,
    words: str,
    refused: bool,  # noqa: FBT001
) -> None:
    """RFC 6376 3.6.1, most of which dkimpy leaves to its caller."""
    found = one(dns, sign(selector=selector))
    assert (found.state, found.refused) == (Strength.NOT, refused)
    assert words in found.detail


def test_a_strict_key_allows_no_subdomain(dns: Resolver) -> None:
    """t=s: i= must be of exactly d=."""
    exact = sign(selector="strict", identity=b"bob@sender.example")
    below = sign(selector="strict", identity=b"bob@sub.sender.example")
    assert one(dns, exact).state is Strength.PROVEN
    assert one(dns, below).refused
    assert one(dns, sign(identity=b"b@sub.sender.example")).state is Strength.PROVEN


def test_a_short_rsa_key_proves_nothing(tmp_path: Path) -> None:
    """768 bits can be factored."""
    private = tmp_path / "key"
    make = ("openssl", "genrsa", "-traditional", "-out", private, "768")
    subprocess.run(make, check=True, capture_output=True)
    show = ("openssl", "rsa", "-in", private, "-pubout")
    lines = subprocess.run(show, check=True, capture_output=True, text=True).stdout
    public = "".join(lines.splitlines()[1:-1])
    zone = Zone().add("short._domainkey.sender.example", "TXT", f"v=DKIM1; p={public}")
    with serving(zone) as servers:
        found = one(Resolver(servers), sign(selector="short", key=private.read_bytes()))
    assert (found.state, found.refused) == (Strength.NOT, True), found
    assert "too small" in found.detail


def test_a_signature_must_cover_from(dns: Resolver) -> None:
    """RFC 6376 5.4."""
    message = (
        sign().replace(b"h=from : to", b"h=date : to", 1).replace(b": from;", b";")
    )
    assert b"from" not in message.partition(b"h=")[2].partition(b";")[0]
    found = one(dns, message)
    assert (found.state, found.refused) == (Strength.NOT, True)


def test_a_second_from_breaks_the_signature(dns: Resolver) -> None:
    """Even one that the signer did not guard against."""
    message = b"From: eve@sender.example\r\n" + sign(headers=(b"from", b"to"))
    assert one(dns, message).state is Strength.NOT


# ---- time


def test_an_expiry_counts_as_of_reception(dns: Resolver) -> None:
    """The message lay in the spool for longer than its signature lasts."""
    made = int(time.time())
    field = sign()
    early, late = NOW - timedelta(days=30), NOW + timedelta(days=30)
    assert one(dns, field, arrived=late).state is Strength.PROVEN
    assert "future" in one(dns, field, arrived=early).detail
    expired = with_tag(field, b"x=%d" % (made + 60))
    assert "x= had passed" in one(dns, expired, arrived=late).detail
    valid = one(dns, expired, arrived=NOW)
    assert "x=" not in valid.detail  # it is broken by the tag, and no earlier


def resigned_with_expiry(expiry: int) -> bytes:
    """Return a message whose signature has x=, made by hand."""

    class Signer(dkimpy.DKIM):  # type: ignore[misc] # dkimpy has no types
        def gen_header(self, fields: Any, *more: Any, **named: Any) -> Any:
            fields.insert(-1, (b"x", str(expiry).encode()))
            return super().gen_header(fields, *more, **named)

    field = Signer(MESSAGE).sign(
        b"test", b"sender.example", KEY, include_headers=(b"from", b"to")
    )
    return bytes(field) + MESSAGE


def test_a_signature_that_expired_in_the_spool_is_valid(dns: Resolver) -> None:
    """Dkimpy by itself judges x= by today's clock."""
    expiry = int(time.time()) + 3600
    message = resigned_with_expiry(expiry)
    assert one(dns, message).state is Strength.PROVEN
    later = NOW + timedelta(hours=2)
    assert "x= had passed" in one(dns, message, arrived=later).detail


@pytest.mark.parametrize("tag", [b"x=never", b"x=" + b"9" * 5000, b"x=-1"])
def test_an_odd_time_is_no_time(dns: Resolver, tag: bytes) -> None:
    """Python refuses to read a number of 5000 digits."""
    assert one(dns, with_tag(sign(), tag)).state is Strength.NOT


# ---- which signatures are looked at


def test_a_signature_below_others_is_found(dns: Resolver) -> None:
    """Dkimpy's verify() reads but the topmost."""
    broken = sign().replace(b"b=", b"b=BBBB", 1).partition(b"From: Bob")[0]
    foreign = broken.replace(b"sender.example", b"other.example")
    found = look(dns, foreign + broken + sign())
    assert [s.state for s in found] == [Strength.NOT, Strength.NOT, Strength.PROVEN]
    assert [s.organisation for s in found] == [
        "other.example", "sender.example", "sender.example",
    ]  # fmt: skip


def test_many_signatures_cost_little(dns: Resolver) -> None:
    """Only some of the sender's are verified, and only some are listed."""
    field = sign().partition(b"From: Bob")[0].replace(b"b=", b"b=BBBB", 1)
    found = look(dns, field * 200 + MESSAGE)
    assert len(found) == 20
    assert "more than" in found[-1].detail


def test_lookalikes_are_not_aligned(dns: Resolver) -> None:
    """victim.com-evil.org is no subdomain of victim.com, nor the other way round."""
    message = sign().replace(b"d=sender.example", b"d=sender.example-evil.example")
    found = one(dns, message)
    assert found.organisation == "example-evil.example"
    assert found.state is Strength.NOT


# ---- whom it names


def test_the_signed_addressees_are_told(dns: Resolver) -> None:
    """In lower case, of To and Cc."""
    names = {"anna@primary.example", "carl@primary.example"}
    assert one(dns, sign()).addressees == names
    assert one(dns, sign(headers=(b"from",))).addressees == frozenset()


def test_a_to_field_put_on_top_names_nobody(dns: Resolver) -> None:
    """Who replays a message may add one, and the signature stays valid."""
    message = b"To: victim@primary.example\r\n" + sign()
    found = one(dns, message)
    assert found.state is Strength.PROVEN
    assert "victim@primary.example" not in found.addressees


# ---- DNS


def test_dns_trouble_is_no_bad_signature(dns: Resolver) -> None:
    """It is asked again later."""
    found = one(dns, sign(selector="sick"))
    assert found.state is Strength.LATER


# ---- what dkimpy stumbles over


@pytest.mark.parametrize(
    "head",
    [
        b" folded: first\r\n",
        b"no colon here\r\n",
        b"\xff\xfe: x\r\n",
        b": no name\r\n",
    ],
)
def test_an_odd_header_line_makes_a_message_unusable(
    dns: Resolver, head: bytes
) -> None:
    """It is told, and nothing is raised but that."""
    with pytest.raises(dkim.NoUsableSignature, match="odd line"):
        look(dns, head + sign())


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b";;;",
        b"v=1",
        b"v=1; v=1; d=sender.example",
        b"a=rsa-sha256; d=sender.example; s=test; h=from; bh=x; b=x",
        b"v=1; a=rsa-sha256; d=sender.example; s=test; h=from; bh=A\xff; b=====",
        b"v=1; a=rsa-sha256; d=sender.example; s=test; h=from; bh=AA==; b=AAAA; c=x/y",
        b"v=1; a=rsa-sha256; d=sender.example; s=../x; h=from; bh=AA==; b=AAAA",
        b"v=1; a=rsa-sha256; d=sender.example; s=test; h=from; bh=AA==; b=AAAA; i=@x",
        b"v=1; a=ed25519-sha256; d=sender.example; s=ed; h=from; bh=AA==; b=AAAA",
        b"v=1; a=rsa-sha256; d=\xc3\xa4.example; s=test; h=from; bh=AA==; b=AAAA",
    ],
)
def test_a_broken_signature_is_no_evidence(dns: Resolver, value: bytes) -> None:
    """Whatever it is, it neither counts nor raises."""
    message = b"DKIM-Signature: " + value + b"\r\n" + MESSAGE
    assert Strength.PROVEN not in [s.state for s in look(dns, message)]


@given(st.binary(max_size=200))
def test_no_signature_raises(value: bytes) -> None:
    """Not even for random bytes in it."""
    nobody = DnsServers(addresses=("127.0.0.1",), port=1, timeout=0.1)
    message = b"DKIM-Signature: " + value.replace(b"\n", b"") + b"\r\n" + MESSAGE
    try:
        found = look(Resolver(nobody), message)
    except dkim.NoUsableSignature:
        return
    assert Strength.PROVEN not in [s.state for s in found]


def test_runs_of_blanks_cost_little(dns: Resolver) -> None:
    """Dkimpy by itself needs a minute for 200 kB of them, with the GIL held."""
    message = MESSAGE + b"x" + b" " * 200_000 + b"y\r\n"
    signed = sign(message, body=b"simple").replace(
        b"c=relaxed/simple", b"c=relaxed/relaxed"
    )
    started = time.process_time()
    assert one(dns, signed).state is Strength.NOT
    assert time.process_time() - started < 2


def test_many_fields_cost_little(dns: Resolver) -> None:
    """Dkimpy compares each name in h= with each field of the header."""
    many = b"".join(b"a:%d\r\n" % n for n in range(30_000))
    with pytest.raises(dkim.NoUsableSignature, match="header fields"):
        look(dns, many + sign())
    names = b":".join(b"x%d" % n for n in range(1000))
    field = sign().replace(b"h=from :", b"h=from :" + names + b":", 1)
    assert "too many fields" in one(dns, field).detail


def test_a_folded_signature_costs_little(dns: Resolver) -> None:
    """Line ends and blanks in b= are what its regular expressions like least."""
    for filler in (b"\r\n " * 2000, b" " * 7000, b"\t\r\n " * 1500):
        field = sign().replace(b"b=", b"b=" + filler + b"!", 1)
        started = time.process_time()
        assert Strength.PROVEN not in [s.state for s in look(dns, field)]
        assert time.process_time() - started < 5


@given(
    st.lists(
        st.sampled_from(
            [b" ", b"\t", b"\r\n", b"\n", b"\r", b"a", b"  \t", b"\r\n\r\n"]
        ),
        max_size=40,
    ).map(b"".join)
)
def test_the_canonical_body_is_dkimpy_s(body: bytes) -> None:
    """Octet for octet; done twice, it is the same when the last line is complete."""
    assert dkim.relaxed_body(body) == Relaxed.canonicalize_body(body)
    ours = dkim.relaxed_body(body + b"\r\n")
    assert Relaxed.canonicalize_body(ours) == ours


# ---- our own signature


@pytest.mark.parametrize(
    ("selector", "key"),
    [("test", KEY), ("ed", ED25519), ("test", KEY.replace(b"\n", b"\r\n"))],
)
def test_a_report_that_we_sign_verifies(
    dns: Resolver, selector: str, key: bytes
) -> None:
    """With an RSA key in PEM, or an Ed25519 key in base64."""
    report = MESSAGE.replace(b"Subject", b"Auto-Submitted: auto-replied\r\nSubject")
    signed = dkim_sign.sign(report, domain="sender.example", selector=selector, key=key)
    assert one(dns, signed).state is Strength.PROVEN
    assert signed.endswith(report)
    assert b"auto-submitted" in signed.partition(b"bh=")[0]
    added = b"From: eve@sender.example\r\n" + signed
    assert one(dns, added).state is Strength.NOT


@pytest.mark.parametrize("key", [b"", b"-----BEGIN x\nAAAA\n-----END", b"not base64!"])
def test_a_bad_key_is_reported(key: bytes) -> None:
    """Before any report is lost over it."""
    with pytest.raises(UsageError, match="DKIM key"):
        dkim_sign.sign(MESSAGE, domain="sender.example", selector="test", key=key)
