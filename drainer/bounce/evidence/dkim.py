"""DKIM as evidence: dkimpy does only the arithmetic, behind a wrapper.

By itself dkimpy reads only the topmost signature, accepts ``l=``, rsa-sha1 and keys for
testing, and judges ``t=`` and ``x=`` by today's clock. It treats DNS trouble as a bad
signature, raises on odd header lines, and takes a minute for 200 kB of blanks. So the
wrapper checks every signature of the sender's domain before dkimpy sees it. dkimpy gets
the body in its canonical form already (RFC 6376 3.4.4, done in linear time; doing it
twice changes nothing).
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import dkim
import dkim.util

from drainer.bounce.evidence.dns import DnsOutcome, Resolver
from drainer.mail.addresses import mailboxes_of, only_author
from drainer.mail.header import fields_of
from drainer.mail.mailbox import ascii_domain, canonical_mailbox, mailbox_key
from drainer.policy.bounce.facts import DkimSignature, Strength
from drainer.runtime.public_suffixes import organisation_of

MAX_SIGNATURES = 5
"""Signatures of the sender's domain that are verified."""
_MIN_RSA_BITS = 1024
CLOCK_SKEW = timedelta(hours=1)
"""How far a signer's clock may be ahead of the backup's."""

_MAX_LISTED = 20
_MAX_FIELDS = 2000
_MAX_NAMES = 200
_MAX_SIGNATURE_BYTES = 8 * 1024
_MAX_KEY_BYTES = 1500
_MAX_ADDRESS_BYTES = 32 * 1024
_MAX_WORDS = 200
_ALGORITHMS = (b"rsa-sha256", b"ed25519-sha256")
_NUMBER = re.compile(rb"[0-9]{1,12}")
_SELECTOR = re.compile(rb"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63}){0,8}")
_ESCAPED = re.compile(rb"=([0-9A-F]{2})")
_BLANKS = re.compile(rb"[\t ]+")

Tags = Mapping[bytes, bytes]


class NoUsableSignature(Exception):
    """No signature of this message can be evidence."""


class SignatureFinding(NamedTuple):
    """What was found about one signature: why it is not evidence, unless proven."""

    words: str
    #: It is of a kind that proves nothing, whether valid or not.
    refused: bool = False
    state: Strength = Strength.NOT
    #: As in DkimSignature.
    mailbox: str = ""
    addressees: frozenset[str] = frozenset()


class SignedMessage(NamedTuple):
    """A message as dkimpy takes it: field names and values unchanged."""

    fields: Sequence[tuple[bytes, bytes]]
    body: bytes
    arrived: datetime


def check(
    dns: Resolver, content: bytes, *, organisation: str, arrived: datetime
) -> tuple[DkimSignature, ...]:
    """Return the signatures of a message, those of ``organisation`` verified.

    ``content`` has CRLF line ends; ``arrived`` is the time for ``t=`` and ``x=``.
    Raises NoUsableSignature if the message does not parse.
    """
    letter = _read(content, arrived)
    found: list[DkimSignature] = []
    verified = 0
    for index, tags in _signatures(letter):
        domain = ascii_domain(tags.get(b"d", b"").decode("ascii", "replace"))
        owner = organisation_of(domain)
        finding = SignatureFinding("not of the sender's domain")
        if owner and owner == organisation:
            verified += 1
            finding = SignatureFinding(f"more than {MAX_SIGNATURES} signatures")
            if verified <= MAX_SIGNATURES:
                finding = _verify(dns, letter, index, tags)
        found.append(
            DkimSignature(
                domain=domain,
                organisation=owner,
                state=finding.state,
                detail=finding.words[:_MAX_WORDS],
                refused=finding.refused,
                mailbox=finding.mailbox,
                addressees=finding.addressees,
            )
        )
    return tuple(found[:_MAX_LISTED])


def _read(content: bytes, arrived: datetime) -> SignedMessage:
    """Return a message as dkimpy takes it; NoUsableSignature if it does not parse."""
    head, blank, body = content.partition(b"\r\n\r\n")
    if not blank:
        head = content.removesuffix(b"\r\n")
    head += b"\r\n"
    fields, end = [], 0
    for each in fields_of(head):
        name, _, value = head[each.start : each.end].partition(b":")
        fields.append((name, value))
        end = each.end
    if len(fields) > _MAX_FIELDS:
        raise NoUsableSignature(f"{len(fields)} header fields")
    if end != len(head):
        raise NoUsableSignature(f"an odd line in the header: {head[end : end + 40]!r}")
    return SignedMessage(fields, body, arrived)


def _signatures(letter: SignedMessage) -> Iterator[tuple[int, Tags]]:
    """Yield the signatures that parse at all, with their number from the top."""
    names = (b"dkim-signature",)
    values = [v for name, v in letter.fields if name.strip().lower() in names]
    for index, value in enumerate(values):
        if len(value) > _MAX_SIGNATURE_BYTES:
            continue
        try:
            yield index, dkim.util.parse_tag_value(value)
        except dkim.util.InvalidTagValueList:
            continue


def _verify(
    dns: Resolver, letter: SignedMessage, index: int, tags: Tags
) -> SignatureFinding:
    """Return whether one signature is valid, and what it names."""
    if fault := _fault_of(tags, letter.arrived):
        return fault
    record = _find_key(dns, tags)
    if isinstance(record, SignatureFinding):
        return record
    if fault := _fault_of_key(dkim.util.parse_tag_value(record), tags):
        return fault
    verifier = _Verifier(letter, tags)
    try:
        valid = verifier.verify(index, dnsfunc=lambda *_, **__: record)
    except dkim.KeyFormatError as error:
        return SignatureFinding(f"key: {error}", refused=True)
    except Exception as error:  # noqa: BLE001 - whatever it stumbles over
        return SignatureFinding(str(error) or repr(error))
    if not valid:
        return SignatureFinding("the signature does not match the message or the key")
    return SignatureFinding(
        "valid",
        state=Strength.PROVEN,
        mailbox=verifier.mailbox(),
        addressees=verifier.addressees(),
    )


def _fault_of(tags: Tags, arrived: datetime) -> SignatureFinding | None:
    """Return what is wrong with a signature before its key is known."""
    if fault := _fault_of_coverage(tags):
        return fault
    # Not t= and x=: dkimpy judges them by the time of day.
    timeless = {name: tags[name] for name in tags if name not in (b"t", b"x")}
    try:
        dkim.validate_signature_fields(timeless)
    except Exception as error:  # noqa: BLE001 - it stumbles over some
        return SignatureFinding(str(error) or repr(error))
    return _fault_of_times(tags, arrived)


def _fault_of_coverage(tags: Tags) -> SignatureFinding | None:
    """Return what a signature leaves open, whether it is valid or not."""
    algorithm = tags.get(b"a", b"")
    if algorithm not in _ALGORITHMS:
        return SignatureFinding(
            f"algorithm {algorithm.decode('ascii', 'replace')}", refused=True
        )
    if b"l" in tags:
        return SignatureFinding("l= leaves the end of the body open", refused=True)
    names = _signed_names(tags)
    if b"from" not in names:
        return SignatureFinding("it does not cover From", refused=True)
    if len(names) > _MAX_NAMES:
        return SignatureFinding("it covers too many fields")
    if not _SELECTOR.fullmatch(tags.get(b"s", b"")):
        return SignatureFinding("the selector is not a valid name")
    return None


def _fault_of_times(tags: Tags, arrived: datetime) -> SignatureFinding | None:
    """Return what is wrong with the times of a signature at the time of arrival."""
    times = {}
    for name in (b"t", b"x"):
        if name in tags:
            if not _NUMBER.fullmatch(tags[name]):
                return SignatureFinding(f"{name.decode()}= is not a time")
            times[name] = int(tags[name])
    made, expires = times.get(b"t"), times.get(b"x")
    if made is not None and made > (arrived + CLOCK_SKEW).timestamp():
        return SignatureFinding("t= was in the future when the message arrived")
    if expires is not None and expires < arrived.timestamp():
        return SignatureFinding("x= had passed when the message arrived")
    if made is not None and expires is not None and expires < made:
        return SignatureFinding("x= before t=")
    return None


def _find_key(dns: Resolver, tags: Tags) -> bytes | SignatureFinding:
    """Return the key record of a signature, or why there is none."""
    domain = ascii_domain(tags[b"d"].decode("ascii", "replace"))
    name = f"{tags[b's'].decode()}._domainkey.{domain}"
    answer = dns.ask(name, "TXT")
    if answer.outcome is DnsOutcome.FAILED:
        return SignatureFinding(
            f"DNS did not answer: {answer.detail}", state=Strength.LATER
        )
    records = [record for record in answer.records if b"p=" in record]
    if not records:
        return SignatureFinding(f"no key at {name}")
    if len(records) > 1:
        return SignatureFinding(f"several keys at {name}")
    try:
        dkim.util.parse_tag_value(records[0])
    except dkim.util.InvalidTagValueList:
        return SignatureFinding(f"an unreadable key at {name}")
    return records[0]


def _fault_of_key(key: Tags, tags: Tags) -> SignatureFinding | None:
    """Return what is wrong with a key for this signature (RFC 6376 3.6.1)."""
    kind = key.get(b"k", b"rsa")
    flags = _split_list(key.get(b"t", b""))
    services, hashes = (
        _split_list(key.get(name, default)) for name, default in _ALLOWED
    )
    if key.get(b"v", b"DKIM1") != b"DKIM1":
        return SignatureFinding("a key of another version")
    if not key.get(b"p"):
        return SignatureFinding("the key was revoked")
    if len(key[b"p"]) > _MAX_KEY_BYTES:
        return SignatureFinding("the key is too long")
    if tags[b"a"] != kind + b"-sha256":
        return SignatureFinding(f"a key for {kind.decode('ascii', 'replace')}")
    if b"y" in flags:
        return SignatureFinding("the key is for testing (t=y)", refused=True)
    if not services & {b"*", b"email"} or b"sha256" not in hashes:
        return SignatureFinding("the key is not for this use", refused=True)
    identity = tags.get(b"i", b"@" + tags[b"d"]).rpartition(b"@")[2]
    if b"s" in flags and identity.lower() != tags[b"d"].lower():
        return SignatureFinding(
            "i= is of a subdomain, which the key forbids (t=s)", refused=True
        )
    return None


_ALLOWED = ((b"s", b"*"), (b"h", b"sha256"))
"""Tags of a key that limit its use, and what their absence means."""


def _split_list(value: bytes) -> set[bytes]:
    return {each.strip() for each in value.split(b":")}


def _signed_names(tags: Tags) -> list[bytes]:
    return [name.strip().lower() for name in tags.get(b"h", b"").split(b":")]


def _identity(tags: Tags) -> str:
    """Return ``i=`` if it has a local part (RFC 6376 2.11, 3.5), else ''."""
    text = b"".join(tags.get(b"i", b"").split())
    if text.startswith(b"@"):
        return ""
    plain = _ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), text)
    return plain.decode("utf-8", "replace")


def _from_values(fields: Iterable[Sequence[bytes]]) -> list[bytes]:
    return [value for name, value in fields if name.strip().lower() == b"from"]


class _Verifier(dkim.DKIM):  # type: ignore[misc] # dkimpy has no types
    """dkimpy with a message and a signature that drainer parsed and checked."""

    def __init__(self, letter: SignedMessage, tags: Tags) -> None:
        super().__init__(minkey=_MIN_RSA_BITS)
        self._tags = dict(tags)
        self.headers = [list(field) for field in letter.fields]
        relaxed = tags.get(b"c", b"").partition(b"/")[2] == b"relaxed"
        # A content always ends in CRLF, so dkimpy changes nothing any more.
        self.body = relaxed_body(letter.body) if relaxed else letter.body

    def verify_headerprep(self, _index: int = 0) -> Any:  # noqa: ANN401
        """Return tags, names of the signed fields, and all signature fields."""
        names = (b"dkim-signature",)
        signatures = [(n, v) for n, v in self.headers if n.strip().lower() in names]
        return self._tags, _signed_names(self._tags), signatures

    def mailbox(self) -> str:
        """Return the one mailbox that the signer vouches for, '' for none.

        A local part in ``i=`` is the signer's own statement, and outranks From. A From
        field that is not signed counts as a second one: the signer may have seen
        another.
        """
        identity = _identity(self._tags)
        if identity:
            return canonical_mailbox(identity)
        present, signed = map(_from_values, (self.headers, self.signed_headers))
        if len(present) != 1 or len(signed) != 1:
            return ""
        try:
            return only_author([signed[0].decode()])
        except UnicodeDecodeError:
            return ""

    def addressees(self) -> frozenset[str]:
        """Return the mailboxes of the To and Cc fields that the signature covers.

        A field that was added above the signed one is not among them.
        """
        values = [
            value.decode("utf-8", "replace").replace("\r\n", "")
            for name, value in self.signed_headers
            if name.strip().lower() in (b"to", b"cc")
            and len(value) <= _MAX_ADDRESS_BYTES
        ]
        found = (address for value in values for address in mailboxes_of(value))
        return frozenset(mailbox_key(address) for address in found if address)


def relaxed_body(body: bytes) -> bytes:
    """Return a body in relaxed canonical form (RFC 6376 3.4.4), in linear time.

    Doing it twice changes nothing if the last line is complete.
    """
    text = _BLANKS.sub(b" ", body).replace(b" \r\n", b"\r\n")
    end = len(text)
    while text.endswith(b"\r\n", 0, end):
        end -= 2
    return text[:end] + b"\r\n" if end else b""
