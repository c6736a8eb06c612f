"""Which domains belong to one organisation, by the public suffix list."""

from functools import cache, lru_cache

from publicsuffixlist import PublicSuffixList


@cache
def _suffixes() -> PublicSuffixList:
    return PublicSuffixList()


def is_public_suffix(domain: str) -> bool:
    """Return whether any person can register names below a domain in ASCII."""
    return _suffixes().privatesuffix(domain) is None


@lru_cache(maxsize=10_000)
def organisation_of(domain: str) -> str:
    """Return the organisational domain (RFC 7489 3.2) of one in ASCII.

    A public suffix is its own organisation; '' for ''.
    """
    if not domain:
        return ""
    return str(_suffixes().privatesuffix(domain) or domain)
