r"""Mailboxes for comparison: one spelling for all that mean the same; pure.

You can write a mailbox in many ways: ``"bob"@x``, ``"b\ob"@x``, ``bob@X.``, and its
domain in Unicode or as A-labels. drainer sends the spelling of the client.
"""

import re
import unicodedata
from functools import lru_cache

MAX_DOMAIN_LENGTH = 253
MAX_LABEL_LENGTH = 63  # RFC 1035 2.3.4
_ACE = "xn--"
"""How an A-label starts (RFC 5890 2.3.2.1)."""
_DOTS = re.compile("[\u3002\uff0e\uff61]")
"""What separates labels besides ``.`` (UTS 46 4.5)."""
_BATV = re.compile(r"(?:prvs=[^=]*=|btv1==[^=]*==)(?=.)")
"""The prefix that a host adds to senders of its own mail; it changes every day."""
_QUOTED_PAIR = re.compile(r"\\(.)")


@lru_cache(maxsize=10_000)
def ascii_domain(domain: str) -> str:
    """Return a domain in ASCII and lower case; '' if it is not a DNS name.

    Its letters are mapped as servers map them (UTS 46, non-transitional, the default
    of Postfix since 3.3). A label may be one that no registry gives out.
    """
    name = domain.strip()
    name = (name.lower() if name.isascii() else _a_labels(name)).rstrip(".")
    labels = name.split(".")
    if len(name) > MAX_DOMAIN_LENGTH or not all(
        0 < len(each) <= MAX_LABEL_LENGTH for each in labels
    ):
        return ""
    legal = all(char.isalnum() or char in "-_." for char in name)
    return name if legal else ""


def _a_labels(name: str) -> str:
    import idna  # noqa: PLC0415 - its tables take long to load, and few names need them

    try:
        mapped = idna.uts46_remap(name, std3_rules=False)
    except idna.IDNAError:
        return ""
    labels = mapped.split(".")
    if any(each.startswith(_ACE) and not each.isascii() for each in labels):
        return ""  # RFC 5891 4.2.3.1
    return ".".join(
        each if each.isascii() else f"{_ACE}{each.encode('punycode').decode()}"
        for each in labels
    )


def readable(text: str) -> str:
    """Return a mailbox, a domain or a part of one as people compare it.

    That is lower case, with U-labels (RFC 5890 2.3.2.1). Two spellings of a domain
    become one, and a part of a word stays a part of it.
    """
    if text.isascii() and _ACE not in text.lower():
        return text.lower()
    local, at, domain = text.rpartition("@")
    labels = _DOTS.sub(".", domain).split(".")
    return f"{local.lower()}{at}{'.'.join(map(_readable_label, labels))}"


@lru_cache(maxsize=10_000)
def _readable_label(label: str) -> str:
    name = ascii_domain(label) or label.lower()
    if not name.startswith(_ACE):
        return name
    try:
        shown = name.removeprefix(_ACE).encode("ascii").decode("punycode")
    except UnicodeError:
        return name
    return shown if name == ascii_domain(shown) else name


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
