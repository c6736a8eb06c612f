"""Recipients that get another address on the way. Pure.

The mapping is applied once, so two addresses may change places. Spool and ledger keep
the address of the spool. Only RCPT has the new one, with the old one as ORCPT if the
client gave none (RFC 3461 5.2.1).
"""

from collections.abc import Iterable, Mapping

from msgspec import Struct, field
from msgspec.structs import replace

from drainer.mail.envelope import AddressError, Recipient, domain_key, parse_mailbox


def _fold(mailbox: str) -> str:
    local, at, domain = mailbox.lower().rpartition("@")
    return f"{local}{at}{domain_key(domain)}"


class AddressMapping(Struct, frozen=True, kw_only=True):
    """Which addresses become which; by default none."""

    #: Keyed by the folded mailbox, or ``@domain``; the value is a mailbox, or
    #: ``@domain``, which keeps the local part.
    table: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.table)

    def target(self, forward_path: str) -> str:
        """Return the address to send to: the same one unless it is mapped.

        Raises AddressError if the local part does not fit into the new domain.
        """
        if not self.table:
            return forward_path
        wanted = _fold(forward_path)
        domain = wanted.rpartition("@")[2]
        found = self.table.get(wanted) or self.table.get(f"@{domain}")
        if not found:
            return forward_path
        if not found.startswith("@"):
            return found
        return parse_mailbox(forward_path.rpartition("@")[0] + found)

    def applied(self, recipient: Recipient) -> Recipient:
        """Return the recipient with the address that is sent."""
        path = recipient.forward_path
        target = self.target(path)
        if target == path:
            return recipient
        kind = "rfc822" if path.isascii() else "utf-8"  # RFC 6533 3
        orcpt = recipient.orcpt or f"{kind};{path}"
        return replace(recipient, forward_path=target, orcpt=orcpt, original=path)


def parse_redirects(lines: Iterable[str]) -> AddressMapping:
    """Parse ``old@x=new@y`` or ``@x=@y``; blanks may replace the equals sign.

    Empty lines, and lines that start with ``#``, are ignored. Raises ValueError that
    says which line is wrong, and why.
    """
    table: dict[str, str] = {}
    for line in lines:
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        old, new = _parse(text)
        if table.setdefault(_fold(old), new) != new:
            message = f"{old} is mapped twice, to {table[_fold(old)]} and to {new}"
            raise ValueError(message)
    return AddressMapping(table=table)


def _parse(text: str) -> tuple[str, str]:
    """Split a line: the equals sign may also be part of a local part."""
    words = text.split()
    if len(words) == 2 and not words[0].endswith("="):  # noqa: PLR2004
        pairs = [(words[0], words[1])]
    else:
        cuts = [at for at, char in enumerate(text) if char == "="]
        pairs = [(text[:at].strip(), text[at + 1 :].strip()) for at in cuts]
    reason = "write old@x=new@y, or @x=@y for a domain"
    found = []
    for old, new in pairs:
        try:
            found.append((_address(old), _address(new)))
        except AddressError as error:
            reason = str(error)
    if len(found) == 1:
        return found[0]
    message = f"cannot map {text[:200]!r}: {'it has two meanings' if found else reason}"
    raise ValueError(message)


def _address(text: str) -> str:
    """Return a mailbox, or ``@domain``; raise AddressError if it is neither."""
    if text.startswith("@"):
        parse_mailbox(f"postmaster{text}")
        return text
    mailbox = parse_mailbox(text)
    if "@" not in mailbox:
        raise AddressError(f"no domain in {text!r}")
    return mailbox
