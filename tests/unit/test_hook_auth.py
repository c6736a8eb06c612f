"""Tokens, signatures that count once, and sessions."""

import pytest

from drainer.errors import UsageError
from drainer.hook.auth import (
    SESSION,
    WINDOW,
    Signatures,
    bearer,
    in_session,
    same,
    secret_of,
    session,
    signature,
)

KEY, NOW = "0123456789abcdef", 1_795_000_000.0
STAMP = str(int(NOW))
BODY = b'{"reason": "x"}'
RIGHT = signature(KEY, STAMP, BODY)


def test_the_signature_is_that_of_the_recipe() -> None:
    """As openssl and Python's documentation make it: docs/hook.md."""
    # printf 1795000000.{} | openssl dgst -sha256 -mac HMAC -macopt key:0123456789abcdef
    assert signature(KEY, STAMP, b"{}") == KNOWN


KNOWN = "0e41ae18dec0c98f9ccccdfc9da1d6b897e12bde7815a6055d8739af8b38df59"


@pytest.mark.parametrize(
    ("stamp", "given", "body", "words"),
    [
        (STAMP, RIGHT, BODY, ""),
        (STAMP, f"sha256={RIGHT}", BODY, ""),
        (STAMP, f"SHA256={RIGHT.upper()}", BODY, ""),
        (STAMP, signature(KEY, STAMP, BODY, b":"), BODY, ""),
        (STAMP, RIGHT, BODY + b" ", "does not fit"),
        (str(int(NOW) + 1), RIGHT, BODY, "does not fit"),
        (STAMP, signature("x" * 16, STAMP, BODY), BODY, "does not fit"),
        (STAMP, "", BODY, "does not fit"),
        (STAMP, "\u00fc", BODY, "does not fit"),
        ("", RIGHT, BODY, "no number"),
        ("now", RIGHT, BODY, "no number"),
        ("9" * 400, RIGHT, BODY, "no number"),
        ("\u0661", RIGHT, BODY, "no number"),
        (str(int(NOW) - 301), RIGHT, BODY, "five minutes"),
        (str(int(NOW) + 301), RIGHT, BODY, "five minutes"),
    ],
)
def test_a_signature_counts_for_its_time_and_body_only(
    stamp: str, given: str, body: bytes, words: str
) -> None:
    """And with Grafana's colon between the two."""
    refusal = Signatures(KEY).refusal(stamp, given, body, NOW)
    assert words in refusal
    assert bool(words) is bool(refusal)


def test_a_signature_counts_once_for_as_long_as_its_time_does() -> None:
    """Also when it is written in another way; and nothing is remembered for ever."""
    known, window = Signatures(KEY), WINDOW.total_seconds()
    early, late = NOW - window, NOW + window
    assert known.refusal(STAMP, RIGHT, BODY, early) == ""
    for again in (RIGHT, f"sha256={RIGHT.upper()}"):
        assert "used before" in known.refusal(STAMP, again, BODY, late)
    other = str(int(late + window))
    assert known.refusal(other, signature(KEY, other, b""), b"", late + window) == ""
    assert len(known._seen) == 1


def test_what_is_signed_with_another_key_is_not_remembered() -> None:
    """Nobody can fill our memory, or use up a signature that is not his."""
    known = Signatures(KEY)
    assert known.refusal(STAMP, "0" * 64, BODY, NOW)
    assert known._seen == {}
    assert known.refusal(STAMP, RIGHT, BODY, NOW) == ""


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
    assert not in_session("", session("", NOW), NOW)


def test_a_session_holds_for_its_time_and_token() -> None:
    """A new token ends it."""
    cookie, later = session(KEY, NOW), NOW + SESSION.total_seconds()
    assert in_session(KEY, cookie, later - 1)
    assert not in_session(KEY, cookie, later)
    assert not in_session("another-token-0123", cookie, NOW)
    end, _, code = cookie.partition(".")
    for bad in ("", ".", end, f"{int(end) + 1}.{code}", f"{end}.{code}0", f"x.{code}"):
        assert not in_session(KEY, bad, NOW)


@pytest.mark.parametrize("text", ["", "short", "with space 0123456789", "\u00fc" * 20])
def test_what_can_be_guessed_or_cannot_be_sent_is_no_secret(text: str) -> None:
    """It says where it stood, and never what."""
    with pytest.raises(UsageError, match="token_file x: a secret has 16") as caught:
        secret_of(text, "token_file x")
    assert not text or text not in str(caught.value)


def test_a_secret_loses_what_an_editor_adds() -> None:
    """The end of the line."""
    assert secret_of(f" {KEY}\r\n", "here") == KEY
