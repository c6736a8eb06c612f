"""How addresses appear in traces and logs: plain, or as keyed hashes.

The primary quotes addresses in its replies, and drainer does so in its evidence. With
hashes, every mailbox in such a text is hashed too, and so is a word in angle brackets
(``<bob>: user unknown``). Where a local part of one of them, or of the message's own
addresses, is alone in the rest of the text, it is hashed as well.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from drainer.mail.mailbox import unquote

MAX_TEXT = 4000
"""Characters of a text that are shown."""
MAX_QUOTED = 50
"""Mailboxes in a text whose local parts are looked for in the rest of it."""
ROLES = frozenset(
    (
        "abuse", "account", "address", "admin", "contact", "help", "hostmaster", "info",
        "local", "mail", "mailbox", "mailer-daemon", "newsletter", "no-reply", "noc",
        "noreply", "office", "postmaster", "recipient", "root", "sales", "security",
        "sender", "support", "the", "unknown", "user", "webmaster",
    )
)  # fmt: skip
"""Local parts that name no person, and are words of replies (RFC 2142)."""

_AT = r"(?:@|\uff20|%40|=40|\+40|&#64;|&commat;)"
_QUOTED = r'"(?:[^"\\\s]|\\.| ){1,64}"'
_ATOM = r"[^\s<>\[\](),;:\"@]{1,128}"
_HOST = r"(?:[^\s<>\[\](),;:\"@'/]{1,255}|\[[^\]\s]{1,60}\])"
_MAILBOX = re.compile(rf"((?:{_QUOTED}|{_ATOM}){_AT}{_HOST})")
_HASH = re.compile(r"[0-9a-f]{16}")
_SIGNS = re.compile(r"@|\uff20|%40|=40|\+40|&#64;|&commat;")
_WORD = re.compile(r"<([^\s<>@.:/\[\]]{2,64})>")
"""A word in angle brackets: a mailbox without its domain, or <CR><LF>."""
_SPELT = frozenset(("cr", "lf", "crlf", "nul"))
_TRAIL = ".!?'`*"
OwnMailboxes = Sequence[tuple[str, str]]
"""Addresses, and the local part of each as ``_lower_local`` has it."""


class AddressView:
    """Shows addresses, and texts that may quote some."""

    def __init__(self, salt: bytes, *, plain: bool) -> None:
        """Hash with the ledger's own key unless ``plain``."""
        self._salt = salt
        self.plain = plain
        self._cached = lru_cache(2048)(self._hide)
        self._hash = lru_cache(8192)(self._digest)

    def address(self, mailbox: str) -> str:
        """Return how a mailbox is shown; `<>` for the null sender."""
        if self.plain or not mailbox:
            return mailbox or "<>"
        return self._hash(mailbox)

    def value(self, text: str) -> str:
        """Return how a domain or a Message-ID is shown; '' stays ''."""
        return text if self.plain or not text else self._hash(text)

    def own(self, mailboxes: Iterable[str]) -> OwnMailboxes:
        """Return the addresses of a message, as ``text`` and ``tree`` look for them."""
        if self.plain:
            return ()
        return [(each, _lower_local(each)) for each in mailboxes if each]

    def text(self, text: str, own: OwnMailboxes = ()) -> str:
        """Return a text whose mailboxes, and those of ``own``, are shown like that."""
        if self.plain:
            return text[:MAX_TEXT]
        cut, lower, is_bare = _examine(text)
        for _, local in own:
            if local in lower:
                break
        else:
            return cut if is_bare else self._cached(cut, ())
        return self._cached(cut, tuple(each for each, local in own if local in lower))

    def tree(self, value: Any, own: OwnMailboxes = ()) -> Any:  # noqa: ANN401
        """Return a value of evidence with all its texts shown like that."""
        match value:
            case str():
                return self.text(value, own)
            case Mapping():
                return {key: self.tree(each, own) for key, each in value.items()}
            case list() | tuple():
                return [self.tree(each, own) for each in value]
            case _:
                return value

    def _hide(self, text: str, own: tuple[str, ...]) -> str:
        known = {each.lower(): each for each in own}
        for each in sorted(known.values(), key=len, reverse=True):
            bare = f"{_local(each)}@{each.rpartition('@')[2]}"  # `<john doe@x>`
            whole = f"{re.escape(each)}|{re.escape(bare)}"
            text = re.sub(whole, self._hash(each), text, flags=re.IGNORECASE)
        for found in _MAILBOX.findall(text)[:MAX_QUOTED]:
            each = _SIGNS.sub("@", found).rstrip(_TRAIL)
            known.setdefault(each.lower(), each)
        text = _MAILBOX.sub(lambda match: self._mailbox(match[0], known), text)
        for word in _WORD.findall(text)[:MAX_QUOTED]:
            if not (word.lower() in _SPELT or _HASH.fullmatch(word)):
                known.setdefault(word.lower(), word)
        for each in known.values():
            local = _local(each)
            if len(local) > 1 and local.lower() not in ROLES:
                word = rf"(?<![\w.-]){re.escape(local)}(?![\w-]|\.\w)"
                text = re.sub(word, self._hash(each), text, flags=re.IGNORECASE)
        return text

    def _mailbox(self, found: str, known: Mapping[str, str]) -> str:
        address = _SIGNS.sub("@", found).rstrip(_TRAIL)
        return self._hash(known.get(address.lower(), address))

    def _digest(self, text: str) -> str:
        digest = hashlib.blake2b(text.encode(), key=self._salt, digest_size=8)
        return digest.hexdigest()


@lru_cache(8192)
def _lower_local(mailbox: str) -> str:
    return _local(mailbox).lower()


@lru_cache(4096)
def _examine(text: str) -> tuple[str, str, bool]:
    """Return a text, cut and in lower case, and whether no mailbox can be in it."""
    cut = text[:MAX_TEXT]
    return cut, cut.lower(), not has_mailbox(cut)


def has_mailbox(text: str) -> bool:
    """Return whether a text may quote a mailbox."""
    return bool(_SIGNS.search(text) or _WORD.search(text))


def _local(mailbox: str) -> str:
    """Return the local part as people write it, without quotes."""
    return unquote(mailbox.rpartition("@")[0] or mailbox)
