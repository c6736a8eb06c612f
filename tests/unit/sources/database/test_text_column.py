"""Texts of a database: charsets by name and addresses."""

import pytest

from drainer.sources.database.text_column import (
    codec_of,
    is_charset,
    text_of,
)


@pytest.mark.parametrize(
    ("charset", "codec"),
    [
        ("utf8mb4", "utf-8"), ("UTF8", "utf-8"), ("latin1", "cp1252"),
        ("WIN1252", "cp1252"), ("koi8r", "koi8-r"), ("SQL_ASCII", ""), ("", ""),
        ("EUC_JP", "euc_jp"), ("filename", ""),
    ],
)  # fmt: skip
def test_charsets_have_the_names_of_codecs(charset: str, codec: str) -> None:
    """Of MariaDB and PostgreSQL; '' is one that Python does not know."""
    assert codec_of(charset) == codec


def test_a_claim_is_compared_where_the_charset_is_known() -> None:
    """MariaDB's latin1 is cp1252, and people call it latin-1."""
    assert is_charset("latin1", "latin-1")
    assert is_charset("latin1", "cp1252")
    assert not is_charset("latin1", "utf-8")
    assert not is_charset("utf8mb4", "latin-1")
    assert is_charset("SQL_ASCII", "utf-8")


def test_an_address_is_utf_8_or_in_the_charset_of_its_column() -> None:
    """What is neither stays recognisable as damaged."""
    assert text_of("jörg@x".encode(), "latin1") == "jörg@x"
    assert text_of(b"j\xf6rg@x", "latin1") == "jörg@x"
    assert text_of(b"j\xf6rg@x", "utf8mb4") == "j\udcf6rg@x"
    assert text_of(b"j\xf6rg@x", "SQL_ASCII") == "j\udcf6rg@x"
