"""ARC as evidence (RFC 8617), by dkimpy behind the wrapper that DKIM has: experimental.

A chain is the word of forwarders about what they saw, so that it counts only when
each of them is on the operator's list. It is bound to no envelope and can be sent
again by anybody, so that it is weak, like a signature that names nobody.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import dkim as dkimpy
import dkim.util

from drainer.bounce.evidence.authres import claims_in
from drainer.bounce.evidence.dkim import (
    MAX_SIGNATURE_BYTES,
    MIN_RSA_BITS,
    NoUsableSignature,
    SignatureFault,
    SignedMessage,
    Tags,
    fault_of_coverage,
    fault_of_key,
    fault_of_times,
    find_key,
    read,
    relaxed_body,
)
from drainer.bounce.evidence.dns import Resolver
from drainer.mail.header import unfold
from drainer.mail.mailbox import ascii_domain
from drainer.policy.bounce.facts import Chain, Strength

MAX_SETS = 10
"""Of forwarders in a row; RFC 8617 4.2.1 allows 50."""

RESULTS, SIGNATURE, SEAL = (
    b"arc-authentication-results",
    b"arc-message-signature",
    b"arc-seal",
)
_INSTANCE = re.compile(rb"\s*i\s*=\s*([0-9]{1,2})\s*;\s*")
_RELAXED = (b"", b"relaxed/relaxed")

Set = Mapping[bytes, bytes]
"""Field name -> value, as it stands."""


def look(
    dns: Resolver, content: bytes, *, sealers: frozenset[str], arrived: datetime
) -> Chain:
    """Return what the chain of a message says, or why it says nothing.

    ``content`` has CRLF line ends; names of ``sealers`` are in lower case.
    """
    try:
        letter = read(content, arrived)
        sets = _sets(letter)
        if not sets:
            return Chain(detail="no ARC chain")
        keys = _keys(dns, letter, sets, sealers)
        _verify(letter, keys)
    except NoUsableSignature as error:
        return Chain(detail=str(error))
    except _Broken as broken:
        return Chain(detail=broken.words, later=broken.later)
    value = _INSTANCE.sub(b"", sets[1][RESULTS], count=1)
    claims, detail = claims_in([unfold(value.decode("utf-8", "replace"))])
    return Chain(claims=claims, detail=detail)


class _Broken(Exception):
    """The chain proves nothing; ``later``, because DNS did not answer."""

    def __init__(self, words: str, *, later: bool = False) -> None:
        super().__init__(words)
        self.words = words
        self.later = later


def _sets(letter: SignedMessage) -> dict[int, Set]:
    """Return the sets by instance, 1 to the last; raises _Broken for another order."""
    found: dict[int, dict[bytes, bytes]] = {}
    for name, value in letter.fields:
        known = name.strip().lower()
        if known not in (RESULTS, SIGNATURE, SEAL):
            continue
        instance = _instance(known, value)
        if len(value) > MAX_SIGNATURE_BYTES or known in found.setdefault(instance, {}):
            message = f"instance {instance} has a field too long, or two of a kind"
            raise _Broken(message)
        found[instance][known] = value
    if sorted(found) != list(range(1, len(found) + 1)) or len(found) > MAX_SETS:
        message = "the instances are no chain, or too many"
        raise _Broken(message)
    if any(len(each) != 3 for each in found.values()):  # noqa: PLR2004
        message = "a set is not complete"
        raise _Broken(message)
    return dict(found)


def _instance(name: bytes, value: bytes) -> int:
    if name == RESULTS:
        match = _INSTANCE.match(value)
        text = match[1] if match else b""
    else:
        text = _tags(value).get(b"i", b"")
    return int(text) if text.isdigit() else 0


def _tags(value: bytes) -> Tags:
    try:
        tags: Tags = dkim.util.parse_tag_value(value)
    except dkim.util.InvalidTagValueList:
        message = "a signature that cannot be read"
        raise _Broken(message) from None
    return tags


def _keys(
    dns: Resolver,
    letter: SignedMessage,
    sets: Mapping[int, Set],
    sealers: frozenset[str],
) -> dict[bytes, bytes]:
    """Return the key records by name; raises _Broken for what may not be believed."""
    keys = {}
    for instance, tags, fault in _signatures(letter, sets):
        domain = ascii_domain(tags.get(b"d", b"").decode("ascii", "replace"))
        if domain not in sealers:
            message = f"{domain or 'nobody'} of instance {instance} is not believed"
            raise _Broken(message)
        record = fault or find_key(dns, tags)
        if isinstance(record, bytes):
            record = fault_of_key(dkim.util.parse_tag_value(record), tags) or record
        if isinstance(record, SignatureFault):
            later = record.state is Strength.LATER
            message = f"instance {instance}: {record.words}"
            raise _Broken(message, later=later)
        keys[tags[b"s"] + b"._domainkey." + tags[b"d"] + b"."] = record
    return keys


def _signatures(
    letter: SignedMessage, sets: Mapping[int, Set]
) -> Iterator[tuple[int, Tags, SignatureFault | None]]:
    """Yield the signatures, and what is wrong with them before a key is known."""
    for instance, each in sets.items():
        for name in (SEAL, SIGNATURE):
            tags = _tags(each[name])
            # A seal has no h=: it covers the sets, in which From has no part.
            covered = tags if name == SIGNATURE else {**tags, b"h": b"from"}
            fault = fault_of_coverage(covered) or fault_of_times(tags, letter.arrived)
            if tags.get(b"c", b"") not in _RELAXED:
                fault = fault or SignatureFault("it is not in relaxed form")
            yield instance, tags, fault


def _verify(letter: SignedMessage, keys: Mapping[bytes, bytes]) -> None:
    verifier = _Verifier(letter)
    try:
        state, _, reason = verifier.verify(dnsfunc=lambda name, **_: keys.get(name))
    except Exception as error:  # noqa: BLE001 - whatever it stumbles over
        raise _Broken(str(error) or repr(error)) from None
    if state != dkimpy.CV_Pass:
        raise _Broken(str(reason))


class _Verifier(dkimpy.ARC):  # type: ignore[misc] # dkimpy has no types
    """dkimpy, given a message that was read and judged by us."""

    def __init__(self, letter: SignedMessage) -> None:
        super().__init__(minkey=MIN_RSA_BITS)
        self.headers: list[Any] = [list(field) for field in letter.fields]
        self.body = relaxed_body(letter.body)
