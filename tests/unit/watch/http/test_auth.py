"""Tokens, signatures that count once, and sessions."""

import pytest

from drainer.errors import UsageError
from drainer.watch.http.auth import (
    SESSION,
    WINDOW,
    SignatureCheck,
    bearer,
    grafana_signature,
    is_in_session,
    same,
    secret_of,
    session,
    signature,
)

KEY, NOW = "0123456789abcdef", 1_795_000_000.0
STAMP = str(int(NOW))
BODY = b'{"reason": "x"}'
REQUEST, OTHER = "POST /hooks/primary-up", "POST /hooks/primary-down"
RIGHT = signature(KEY, STAMP, REQUEST, BODY)
ALERT = b'{"status": "firing", "alerts": []}'


def claim(
    stamp: str = STAMP, given: str = RIGHT, body: bytes = BODY, request: str = REQUEST
) -> tuple[str, str, str, bytes]:
    """Return a signed request."""
    return stamp, given, request, body


def test_the_signature_is_that_of_the_recipe() -> None:
    """As openssl and Python's documentation make it: docs/hook.md."""
    # printf '1795000000\nPOST /hooks/primary-up\n{}' |
    #   openssl dgst -sha256 -mac HMAC -macopt key:0123456789abcdef
    assert signature(KEY, STAMP, REQUEST, b"{}") == KNOWN


KNOWN = "5b2363dd959242e3d9acb86caf0af2e774d33acdf0bfede5e53cb49f1f1a48e9"


@pytest.mark.parametrize(
    ("stamp", "given", "body", "words"),
    [
        (STAMP, RIGHT, BODY, ""),
        (STAMP, f"sha256={RIGHT}", BODY, ""),
        (STAMP, f"SHA256={RIGHT.upper()}", BODY, ""),
        (STAMP, grafana_signature(KEY, STAMP, ALERT), ALERT, ""),
        (STAMP, grafana_signature(KEY, STAMP, BODY), BODY, "does not cover method"),
        (STAMP, grafana_signature(KEY, STAMP, b""), b"", "does not cover method"),
        (STAMP, signature(KEY, STAMP, OTHER, BODY), BODY, "does not fit"),
        (STAMP, signature(KEY, STAMP, REQUEST[5:], BODY), BODY, "does not fit"),
        (STAMP, RIGHT, BODY + b" ", "does not fit"),
        (str(int(NOW) + 1), RIGHT, BODY, "does not fit"),
        (STAMP, signature("x" * 16, STAMP, REQUEST, BODY), BODY, "does not fit"),
        (STAMP, "", BODY, "does not fit"),
        (STAMP, "\u00fc", BODY, "does not fit"),
        ("", RIGHT, BODY, "not a number"),
        ("now", RIGHT, BODY, "not a number"),
        ("9" * 400, RIGHT, BODY, "not a number"),
        ("\u0661", RIGHT, BODY, "not a number"),
        (str(int(NOW) - 301), RIGHT, BODY, "five minutes"),
        (str(int(NOW) + 301), RIGHT, BODY, "five minutes"),
    ],
)
def test_a_signature_counts_for_its_time_request_and_body_only(
    stamp: str, given: str, body: bytes, words: str
) -> None:
    """Grafana signs no path: it counts for alerts, which mean the same everywhere."""
    refusal = SignatureCheck(KEY).refusal(*claim(stamp, given, body), NOW)
    assert words in refusal
    assert bool(words) is bool(refusal)


def test_a_signature_counts_once_for_as_long_as_its_time_does() -> None:
    """Also when it is written in another way; and nothing is remembered for ever."""
    known, window = SignatureCheck(KEY), WINDOW.total_seconds()
    early, late = NOW - window, NOW + window
    assert known.refusal(*claim(), early) == ""
    for again in (RIGHT, f"sha256={RIGHT.upper()}"):
        assert "used before" in known.refusal(*claim(given=again), late)
    other = str(int(late + window))
    new = claim(other, signature(KEY, other, REQUEST, b""), b"")
    assert known.refusal(*new, late + window) == ""
    assert len(known._seen) == 1


def test_grafana_may_send_the_same_alert_to_both_urls() -> None:
    """Its signature is then the same; each URL takes it once."""
    known, given = SignatureCheck(KEY), grafana_signature(KEY, STAMP, ALERT)
    for request in (REQUEST, OTHER):
        alert = claim(given=given, body=ALERT, request=request)
        assert known.refusal(*alert, NOW) == ""
        assert "used before" in known.refusal(*alert, NOW)


def test_what_is_signed_with_another_key_is_not_remembered() -> None:
    """Nobody can fill our memory, or use up a signature that is not his."""
    known = SignatureCheck(KEY)
    assert known.refusal(*claim(given="0" * 64), NOW)
    assert known._seen == {}
    assert known.refusal(*claim(), NOW) == ""


@pytest.mark.parametrize(
    ("authorization", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("Basic abc", ""),
        ("Bearer", ""),
        ("abc", ""),
        ("", ""),
    ],
)
def test_the_token_of_an_authorization_field(authorization: str, token: str) -> None:
    """RFC 6750 2.1; the scheme in any case."""
    assert bearer(authorization) == token


def test_no_secret_is_nobodys_secret() -> None:
    """An empty token opens nothing, and no session holds without one."""
    assert not same("", "")
    assert same("a", "a")
    assert not same("a", "b")
    assert not is_in_session("", session("", NOW), NOW)


def test_a_session_holds_for_its_time_and_token() -> None:
    """A new token ends it."""
    cookie, later = session(KEY, NOW), NOW + SESSION.total_seconds()
    assert is_in_session(KEY, cookie, later - 1)
    assert not is_in_session(KEY, cookie, later)
    assert not is_in_session("another-token-0123", cookie, NOW)
    end, _, code = cookie.partition(".")
    for bad in ("", ".", end, f"{int(end) + 1}.{code}", f"{end}.{code}0", f"x.{code}"):
        assert not is_in_session(KEY, bad, NOW)


@pytest.mark.parametrize("text", ["", "short", "with space 0123456789", "\u00fc" * 20])
def test_what_can_be_guessed_or_cannot_be_sent_is_no_secret(text: str) -> None:
    """It says where it stood, and never what."""
    with pytest.raises(UsageError, match="token_file x: a secret has 16") as caught:
        secret_of(text, "token_file x")
    assert not text or text not in str(caught.value)


def test_a_secret_loses_what_an_editor_adds() -> None:
    """The end of the line."""
    assert secret_of(f" {KEY}\r\n", "here") == KEY
