"""Bring the words of a reply into one form, and build patterns from classes of words.

Servers say the same in many ways: `isn't` and `is not`, `black list` and `blacklist`.
Our own families read a reply in its plain form; the operator's rules read it as it is.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

RECIPIENT = "rcpt:"
"""What stands for `Recipient address rejected:`; the reason behind it decides."""

_AUXILIARY = "is|are|was|were|do|doe?s|did|has|have|had|would|could|should|must|need"
_REWRITTEN: tuple[tuple[str, str], ...] = (
    # "isn't", "isnt" and 'weren"t' are negations like any other.
    (r"\b(?:can['\"]?t|cannot)\b", "can not"),
    (r"\bwon['\"]?t\b", "will not"),
    (rf"\b({_AUXILIARY})n['\"]?t\b", r"\1 not"),
    (r"\byou['\"]?re\b", "you are"),
    # Two words, with or without a hyphen, are one word.
    (r"\bgr[ae]y[- ]?list", "greylist"),
    (r"\b(black|block|deny|drop|white|allow)[- ]list", r"\1list"),
    (r"\b(black)[- ](hole)", r"\1\2"),
    (r"\b(mail|in)[- ](box|server)", r"\1\2"),
    (r"\b(host|user|file)[- ](names?)\b", r"\1\2"),
    (r"\b(name|mail)[- ](servers?)\b", r"\1\2"),
    (r"\b(data)[- ](base)", r"\1\2"),
    (r"\b(anti)[- ](virus|spam|spoof)", r"\1\2"),
    (r"\b(?:log|sign)[- ]?(?:in|on)\b", "login"),
    (r"\b(?:logged|signed)[- ]in\b", "logged-in"),
    (r"\btime[- ]out\b", "timeout"),
    (r"\bover[- ]?quota\b", "over quota"),
    (r"\be[- ]mail", "email"),
    (r"\bdisc\b", "disk"),
    (r"\bline ?feed", "linefeed"),
    (r"\brcpts?\b(?!:| to)", "recipients"),
    (r"\bun-?authori[sz]ed\b", "unauthorized"),
    (r"\b(authori|recogni|synchroni)s", r"\1z"),
    # Exchange names a cause as RESOLVER.ADR.RecipNotFound: three words, not a host.
    (r"\b(resolver|storedrv|smtpsend|queue)\.(?:(adr|rst|grp)\.)?", r"\1 \2 "),
    # Gmail starts with our address and a number: "[192.0.2.1 19] Our system ...".
    (r"^\[[^\]a-z]*\[ip\] +\d+\] +|^\[ip\] +\d+\] +", ""),
    (r"^\[ip\] +(our|this|these|the|messages?|gmail)\b", r"\1"),
    (r"\(in reply to [^)]*\)", ""),
    (r"\b(?:all )?recipient address(?:es)? rejected ?[:.]?", RECIPIENT),
)
_REWRITES = tuple((re.compile(pattern), words) for pattern, words in _REWRITTEN)
_HOST = re.compile(
    r"(?<![\w.-])[a-z0-9_-]+(?:\.[a-z0-9_-]+)*"
    r"\.(?:[a-z0-9_-]+\.[a-z]{2,}"
    r"|com|net|org|edu|gov|info|biz|io|eu|de|uk|fr|jp|ru|ua|cn|nl|br|au|ca|ch|pl|at|es"
    r"|cz|test|example|invalid|local|lan)(?![\w-])"
)
_KINDS = (
    (re.compile(r"\b(?:dbl|surbl|uribl)\b"), "[links]"),
    (re.compile(r"spf|dmarc"), "[spf]"),
    (
        re.compile(
            r"spamhaus|spamcop|sorbs|barracuda|abuseat|mailspike|psbl|senderscore"
            r"|invaluement|dnsbl|rbl\b|black|block|(?:^|[.-])"
            r"(?:bl|cbl|zen|xbl|sbl|pbl|ipcheck)[.-]"
        ),
        "[list]",
    ),
)
"""What the name of a host in a reply says about the refusal."""
_CLASS = re.compile(r"\{([a-z]+)\}")
_INNER_DOT = re.compile(r"(?<=\w)\.(?=\w)")
_BLANKS = re.compile(r"\s+")


@lru_cache(maxsize=2048)
def plain(words: str) -> str:
    """Return the plain form of words (normalize.words_of).

    A host becomes ``[fqdn]``; if its name says that it is a blocklist of hosts, or of
    links, or about SPF, ``[list]``, ``[links]``, ``[spf]``. A dot only ends a sentence.
    """
    for pattern, replacement in _REWRITES:
        words = pattern.sub(replacement, words)
    words = _INNER_DOT.sub("-", _HOST.sub(_kind_of_host, words))
    return _BLANKS.sub(" ", words).strip()


def _kind_of_host(found: re.Match[str]) -> str:
    """Return what a host's name says: what it lists, or nothing."""
    for pattern, kind in _KINDS:
        if pattern.search(found[0]):
            return kind
    return "[fqdn]"


def with_classes(patterns: Iterable[str], classes: Mapping[str, str]) -> list[str]:
    """Return patterns with each ``{name}`` replaced by that class of words.

    A class may use the classes before it. Raises KeyError for one that is not known.
    """
    known: dict[str, str] = {}
    for name, pattern in classes.items():
        known[name] = f"(?:{_CLASS.sub(lambda found: known[found[1]], pattern)})"
    return [_CLASS.sub(lambda found: known[found[1]], each) for each in patterns]
