"""ENVID and ORCPT as they came, decoded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.mail.envelope import (
    decode_orcpt,
    from_utf8_xtext,
    from_xtext,
    utf8_xtext,
    xtext,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"plain", "plain"),
        (b"a+2Bb+3Dc", "a+b=c"),
        (b"a+2bb", "a+b"),
        (b"+C3+A4", "ä"),
        (b"a+2", ""),
        (b"a=b", ""),
        (b"a b", ""),
        (b"+0Aa", ""),
        (b"+FF", ""),
        (b"\xe4", ""),
        (b"a" * 501, ""),
    ],
)
def test_xtext_is_decoded_or_left_out(value: bytes, text: str) -> None:
    """What is badly encoded, or may not be shown, is no parameter."""
    assert from_xtext(value) == text


@pytest.mark.parametrize(
    ("value", "orcpt"),
    [
        (b"rfc822;Bob+2Btag@Example.ORG", "rfc822;Bob+tag@Example.ORG"),
        (b"utf-8;j\\x{E4}ne@example.org", "utf-8;jäne@example.org"),
        ("UTF-8;jäne@example.org".encode(), "UTF-8;jäne@example.org"),
        (b"utf-8;\\x{110000}", ""),
        (b"utf-8;\\x{D800}a", ""),
        (b"utf-8;\\x{zz}", ""),
        (b"rfc822", ""),
        (b";a@b", ""),
        (b"rfc822;", ""),
        (b"rfc 822;a@b", ""),
        (b"", ""),
    ],
)
def test_an_orcpt_keeps_its_type(value: bytes, orcpt: str) -> None:
    """The address is decoded by the rules of its type (RFC 6533 3)."""
    assert decode_orcpt(value) == orcpt


PRINTABLE = st.text(st.characters(codec="utf-8"), max_size=100).filter(str.isprintable)


@given(PRINTABLE)
def test_encoding_and_decoding_are_opposites(text: str) -> None:
    """Both ways of writing it come back as they were."""
    assert from_xtext(xtext(text).encode()) == text
    assert from_utf8_xtext(utf8_xtext(text).encode()) == text


@given(st.binary(max_size=60))
def test_anything_decodes_to_printable_text(value: bytes) -> None:
    """Nothing is raised, and no control gets through."""
    for decode in (from_xtext, from_utf8_xtext, decode_orcpt):
        assert decode(value).isprintable()
