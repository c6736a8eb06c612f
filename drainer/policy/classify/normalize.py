"""Make the text of a reply comparable: mask what names a person, host or id."""

import re
from functools import lru_cache

MAX_WORDS = 2000
"""Characters of a reply that are compared; the rest is boilerplate."""

_URL = re.compile(r"https?://([^/\s:?#\])>]+)\S*")
_BETWEEN = re.compile(
    r"<(?!client>|(?:cr|lf|crlf)>)[^<>]*(?:>(?:[^<>]*@[^<>\s]*>)?|(?=<)|$)"
)
"""Text between < and >. A quoted local part may contain a > of its own."""
_QUOTED = re.compile(r'"(?:[^"\\]|\\.){1,200}"@[^\s<>@(),;:]{1,200}')
_MAILBOX = re.compile(r"[^\s<>@\[\](),;:]{1,200}@[^\s<>@(),;:]{1,200}")
_IPV4 = re.compile(r"\[?(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]\d)\]?")
_IPV6 = re.compile(  # at least three colons, or two together: a time is none
    r"\[?(?<![\w:])(?:ipv6:)?(?:(?:[0-9a-f]{1,4}:){3,7}(?:[0-9a-f]{1,4}|\[ip\])"
    r"|(?:[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){0,6})?::"
    r"(?:[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){0,6}|\[ip\])?)(?![\w:])\]?"
)
_MASKED = "<@>"
_BLANKS = re.compile(r"\s+")
_HOST = re.compile(r"(?<![\w.-])[a-z0-9_-]+(?:\.[a-z0-9_-]+){1,}(?![\w-])")
_ID = re.compile(r"(?<![\w-])(?=[\w-]*\d)[\w-]+(?![\w-])")


@lru_cache(maxsize=2048)
def words_of(text: str) -> str:
    """Return a reply's text for matching: lower case, on one line.

    A URL becomes its host, because its path may contain any word. A mailbox, and
    whatever else is between < and >, becomes ``<@>``. An IP address becomes ``[ip]``.
    """
    valid = text[:MAX_WORDS].encode("utf-8", "replace").decode()  # no half characters
    words = _BETWEEN.sub(_MASKED, valid.lower().replace("\u2019", "'"))
    words = _URL.sub(r"\1", words)
    words = _MAILBOX.sub(_MASKED, _QUOTED.sub(_MASKED, words))
    words = words.replace(f"<{_MASKED}>", _MASKED)
    words = _IPV6.sub("[ip]", _IPV4.sub("[ip]", words))
    return _BLANKS.sub(" ", words).strip()


def mask_reply(text: str) -> str:
    """Return a reply's text as all messages get it: hosts, numbers, ids masked too."""
    words = _HOST.sub("host", words_of(text))
    return _ID.sub("#", words)
