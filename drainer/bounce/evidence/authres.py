"""Authentication-Results that the backup itself wrote (RFC 8601), by authres.

Only fields above the topmost Received count, whatever host that one names: the backup
wrote them, and everything below came with the message. A field that does not parse,
contradicts itself or does not say what it is about is not evidence.
"""

from collections.abc import Iterable, Iterator, Sequence

import authres
import authres.dmarc
from authres.core import AuthResError

from drainer.mail.header import Field, fields_of, host_name, unfold
from drainer.mail.mailbox import ascii_domain, canonical_mailbox
from drainer.policy.bounce.facts import AuthResult
from drainer.runtime.public_suffixes import organisation_of

MAX_FIELD_BYTES = 8 * 1024
"""Bytes of one field; authres recurses, so a longer one is not parsed."""
MAX_FIELDS = 10
_MAX_COMMENTS = 50

_PROPERTIES = {
    "spf": (("smtp", "mailfrom"),),
    "dkim": (("header", "d"), ("header", "i")),
    "dmarc": (("header", "from"),),
}
"""Method -> the properties that name a result's subject; the first present counts."""


def claims_of(
    head: bytes, *, authserv_ids: frozenset[str]
) -> tuple[tuple[AuthResult, ...], str]:
    """Return the positive results of trusted fields, or none and why."""
    if not authserv_ids:
        return (), "[bounce] authserv_ids is empty"
    block = _own_block(head)
    if block is None:
        return (), "no Received field of the backup"
    fields = [each for each in block if each.name == "authentication-results"]
    return _claims_in([unfold(each.value) for each in fields], authserv_ids)


def _claims_in(
    values: Sequence[str], authserv_ids: frozenset[str]
) -> tuple[tuple[AuthResult, ...], str]:
    results: dict[tuple[str, str], set[tuple[str, str]]] = {}
    server = ""
    for each in values[:MAX_FIELDS]:
        parsed = _parse(each)
        if parsed is None:
            return (), "a field does not parse"
        name = host_name(str(parsed.authserv_id))
        if name not in authserv_ids:
            continue
        server = name
        if str(parsed.version or "1") != "1":
            return (), "a field of another version"
        for method, domain, result, mailbox in _results(parsed.results):
            results.setdefault((method, domain), set()).add((result, mailbox))
    if len(values) > MAX_FIELDS or any(len(each) > 1 for each in results.values()):
        return (), "the fields contradict one another, or are too many"
    return tuple(
        AuthResult(
            method=method,
            domain=domain,
            organisation=organisation_of(domain),
            authserv_id=server,
            mailbox=mailbox,
        )
        for (method, domain), found in results.items()
        for result, mailbox in found
        if result == "pass"
    ), ""


def _own_block(head: bytes) -> list[Field] | None:
    """Return the fields above the topmost Received; None if there is none."""
    above: list[Field] = []
    for each in fields_of(head):
        if each.name == "received":
            return above
        above.append(each)
    return None


def _parse(value: str) -> "authres.AuthenticationResultsHeader | None":
    """Return a field as authres parses it; None if it does not parse."""
    if value.count("(") > _MAX_COMMENTS or len(value) > MAX_FIELD_BYTES:
        return None
    if not value.replace("\t", " ").isprintable():
        return None
    context = authres.FeatureContext(authres.dmarc)
    try:
        return context.parse(f"Authentication-Results: {value.replace(chr(9), ' ')}")
    except (AuthResError, ValueError, LookupError):
        return None


def _results(results: Iterable[object]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (method, domain, result, mailbox) of results that name their subject."""
    for each in results:
        method = str(getattr(each, "method", "")).lower()
        said = {
            (item.type, item.name): str(item.value)
            for item in reversed(getattr(each, "properties", ()))
        }
        values = [said[name] for name in _PROPERTIES.get(method, ()) if name in said]
        domains = [ascii_domain(value.rpartition("@")[2]) for value in values]
        if any(domains):
            domain = next(filter(None, domains))
            mailbox = next(filter(None, map(canonical_mailbox, values)), "")
            yield method, domain, str(getattr(each, "result", "")).lower(), mailbox
