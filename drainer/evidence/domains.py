"""Domains as DNS writes them, and which of them belong to one organisation."""

from functools import cache, lru_cache

from publicsuffixlist import PublicSuffixList

MAX_DOMAIN_LENGTH = 253
_DEVIATIONS = frozenset("\u00df\u03c2\u200c\u200d")
"""IDNA 2003 and 2008 make different names of these: nobody knows which is meant."""


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()


@lru_cache(maxsize=10_000)
def ascii_domain(domain: str) -> str:
    """Return a domain in ASCII and lower case; '' for what is no DNS name."""
    name = domain.strip().rstrip(".").lower()
    if not _DEVIATIONS.isdisjoint(name):
        return ""
    try:
        name = name.encode("idna").decode() if not name.isascii() else name
    except UnicodeError:
        return ""
    labels = name.split(".")
    if len(name) > MAX_DOMAIN_LENGTH or not all(0 < len(each) < 64 for each in labels):  # noqa: PLR2004 - RFC 1035 2.3.4
        return ""
    legal = all(char.isalnum() or char in "-_." for char in name)
    return name if legal else ""


@lru_cache(maxsize=10_000)
def organisation_of(domain: str) -> str:
    """Return the organisational domain (RFC 7489 3.2) of one in ASCII.

    A public suffix stands for itself; '' for ''.
    """
    if not domain:
        return ""
    return str(_suffixes().privatesuffix(domain) or domain)
