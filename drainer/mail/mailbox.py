r"""Mailboxes for comparison: one spelling for all that mean the same; pure.

You can write a mailbox in many ways: ``"bob"@x``, ``"b\ob"@x``, ``bob@X.``, and its
domain in Unicode or as A-labels. drainer sends the spelling of the client.
"""

import re
import unicodedata
from functools import lru_cache

MAX_DOMAIN_LENGTH = 253
MAX_LABEL_LENGTH = 63  # RFC 1035 2.3.4
_DEVIATIONS = frozenset("\u00df\u03c2\u200c\u200d")
"""IDNA 2003 and 2008 convert these differently, so their meaning is unclear."""
_BATV = re.compile(r"(?:prvs=[^=]*=|btv1==[^=]*==)(?=.)")
"""The prefix that a host adds to senders of its own mail; it changes every day."""
_QUOTED_PAIR = re.compile(r"\\(.)")


@lru_cache(maxsize=10_000)
def ascii_domain(domain: str) -> str:
    """Return a domain in ASCII and lower case; '' if it is not a DNS name."""
    name = domain.strip().rstrip(".").lower()
    if not _DEVIATIONS.isdisjoint(name):
        return ""
    try:
        name = name.encode("idna").decode() if not name.isascii() else name
    except UnicodeError:
        return ""
    name = name.rstrip(".")  # also the dots of other scripts
    labels = name.split(".")
    if len(name) > MAX_DOMAIN_LENGTH or not all(
        0 < len(each) <= MAX_LABEL_LENGTH for each in labels
    ):
        return ""
    legal = all(char.isalnum() or char in "-_." for char in name)
    return name if legal else ""


def readable(text: str) -> str:
    """Return a mailbox, a domain or a part of one as people compare it.

    That is lower case, with U-labels (RFC 5890 2.3.2.1). Two spellings of a domain
    become one, and a part of a word stays a part of it.
    """
    lowered = text.lower()
    if lowered.isascii() and "xn--" not in lowered:
        return lowered
    local, at, domain = lowered.rpartition("@")
    return f"{local}{at}{'.'.join(map(_readable_label, domain.split('.')))}"


@lru_cache(maxsize=10_000)
def _readable_label(label: str) -> str:
    name = ascii_domain(label) or label
    try:
        return name.encode().decode("idna") if name.startswith("xn--") else name
    except UnicodeError:
        return label


def unquote(local: str) -> str:
    """Return a local part without quotes and quoted pairs (RFC 5321 4.1.2)."""
    if len(local) > 1 and local.startswith('"') and local.endswith('"'):
        return _QUOTED_PAIR.sub(r"\1", local[1:-1])
    return local


def canonical_mailbox(mailbox: str) -> str:
    """Return a mailbox in its one spelling; '' without a local part and a DNS name.

    The local part keeps its case, which only its host may interpret (RFC 5321 2.4).
    """
    local, _, domain = mailbox.rpartition("@")
    name, local = ascii_domain(domain), unquote(local)
    return f"{local}@{name}" if local and name else ""


@lru_cache(maxsize=10_000)
def mailbox_key(mailbox: str, tag_delimiters: str = "") -> str:
    """Return one key for all addresses that lead to one mailbox.

    It is the canonical mailbox in lower case, without BATV and without the tag, which
    follows the first of ``tag_delimiters``. If it is not a mailbox, it is the text in
    lower case.
    """
    local, at, domain = mailbox.rpartition("@")
    local = unicodedata.normalize("NFKC", unquote(local)).casefold()
    local = local[batv.end() :] if (batv := _BATV.match(local)) else local
    tag = min((n for n in map(local.find, tag_delimiters) if n > 0), default=None)
    return f"{local[:tag]}{at}{ascii_domain(domain) or domain.rstrip('.').lower()}"
