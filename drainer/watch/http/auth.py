"""Authentication: bearer tokens, signed requests that count once, and page sessions.

Comparisons take the same time whatever differs. Nothing here reads a clock: ``now`` is
in seconds since 1970.
"""

import hashlib
import hmac
import re
from datetime import timedelta

from msgspec import Struct

from drainer.errors import UsageError
from drainer.watch.http.payloads import is_alert

TIMESTAMP = "X-Drainer-Timestamp"
SIGNATURE = "X-Drainer-Signature"
WINDOW = timedelta(minutes=5)
"""How far the time of a signature may be from ours."""
SESSION = timedelta(hours=12)
"""How long the status page is open after a person has shown the token."""
LEAST = 16
"""Characters of a secret: a shorter one can be guessed."""
HINT = "make one with: openssl rand -hex 32"


class HookKeys(Struct, frozen=True, kw_only=True):
    """The secrets that are in force; an empty one is not set."""

    token: str = ""
    operator: str = ""
    hmac: str = ""

    def __repr__(self) -> str:
        """Return it without the secrets."""
        return "HookKeys()"

    @property
    def hooks(self) -> bool:
        """Return whether a hook has to show anything."""
        return bool(self.token or self.hmac)


def secret_of(text: str, where: str) -> str:
    """Return a secret in the form for comparison; UsageError if it is not valid."""
    secret = text.strip()
    if len(secret) < LEAST or not re.fullmatch(r"[!-~]+", secret):
        message = f"{where}: a secret has {LEAST} or more characters, and no spaces"
        raise UsageError(message, hint=HINT)
    return secret


def same(given: str, wanted: str) -> bool:
    """Return whether a secret was given; false for an empty one."""
    equal = hmac.compare_digest(given.encode(), wanted.encode())
    return equal and bool(wanted)


def bearer(authorization: str) -> str:
    """Return the token of an Authorization field (RFC 6750 2.1); '' for none."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def signature(key: str, timestamp: str, request: str, body: bytes) -> str:
    """Return the hex digits that sign time, request (method and path), and body."""
    head = f"{timestamp}\n{request}\n".encode()
    return hmac.new(key.encode(), head + body, hashlib.sha256).hexdigest()


def grafana_signature(key: str, timestamp: str, body: bytes) -> str:
    """Return what Grafana signs: it cannot sign where its alerts go."""
    signed = timestamp.encode() + b":" + body
    return hmac.new(key.encode(), signed, hashlib.sha256).hexdigest()


class SignatureCheck:
    """Checks signatures, and remembers them while they could come again."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._seen: dict[tuple[str, str], float] = {}

    def refusal(
        self, timestamp: str, given: str, request: str, body: bytes, now: float
    ) -> str:
        """Return why a signature does not count, as text; '' if it counts.

        It has hex digits, perhaps behind ``sha256=``. ``request`` is method and path.

        A signature that counts is remembered. Only those signed with the key are, so no
        stranger can fill the memory. A signature of only a body counts if the body says
        whether the primary is up: then it means the same wherever it is sent.
        """
        given = given.lower().removeprefix("sha256=")
        if not re.fullmatch(r"[0-9]{1,12}", timestamp):
            return f"{TIMESTAMP} is not a number of seconds since 1970"
        if abs(now - int(timestamp)) > WINDOW.total_seconds():
            return f"{TIMESTAMP} is more than five minutes from our time"
        ours = signature(self._key, timestamp, request, body)
        if not same(given, ours):
            theirs = grafana_signature(self._key, timestamp, body)
            if not same(given, theirs):
                return "the signature does not fit"
            if not is_alert(body):
                return "the signature does not cover method and path"
        self._forget(now)
        if (request, given) in self._seen:
            return "this signature has been used before"
        self._seen[request, given] = now + 2 * WINDOW.total_seconds()
        return ""

    def _forget(self, now: float) -> None:
        for known in [known for known, end in self._seen.items() if end < now]:
            del self._seen[known]


def session(operator: str, now: float) -> str:
    """Return a cookie for a client that has shown the operator's token."""
    end = str(int(now + SESSION.total_seconds()))
    return f"{end}.{_session_code(operator, end)}"


def is_in_session(operator: str, cookie: str, now: float) -> bool:
    """Return whether a cookie is one of ours and still valid.

    A new token ends all sessions: it is their key.
    """
    end, _, code = cookie.partition(".")
    right = _session_code(operator, end)
    known = bool(operator) and same(code, right)
    return known and re.fullmatch(r"[0-9]{1,12}", end) is not None and int(end) > now


def _session_code(operator: str, end: str) -> str:
    key, text = operator.encode(), f"session {end}".encode()
    return hmac.new(key, text, hashlib.sha256).hexdigest()
