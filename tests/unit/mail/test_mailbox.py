"""One spelling for all that mean the same mailbox."""

import pytest

from drainer.mail.mailbox import (
    ascii_domain,
    canonical_mailbox,
    mailbox_key,
    readable,
    unquote,
)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("bob@sender.example", "bob@sender.example"),
        ("Bob@Sender.Example.", "Bob@sender.example"),
        ('"bob"@sender.example', "bob@sender.example"),
        ('"b\\o\\b"@sender.example', "bob@sender.example"),
        ('"bob@x"@sender.example', "bob@x@sender.example"),
        ('"a b"@sender.example', "a b@sender.example"),
        ("bob@b\u00fccher.example", "bob@xn--bcher-kva.example"),
        ("bob@BU\u0308CHER.example", "bob@xn--bcher-kva.example"),
        ("bob@XN--BCHER-KVA.example", "bob@xn--bcher-kva.example"),
        ("bob@sender\u3002example\uff0e", "bob@sender.example"),
        ("bob@stra\u00dfe.example", "bob@xn--strae-oqa.example"),
        ("bob@a\ufffd.example", ""),
        ("bob@[192.0.2.1]", ""),
        ("bob", ""),
        ("@sender.example", ""),
        ('""@sender.example', ""),
        ("", ""),
    ],
)
def test_the_canonical_mailbox(text: str, canonical: str) -> None:
    """The case of a local part is its host's affair, everything else is not."""
    assert canonical_mailbox(text) == canonical


@pytest.mark.parametrize(
    ("text", "delimiters", "key"),
    [
        ("Bob@Sender.example", "", "bob@sender.example"),
        ("bob+tag@sender.example", "", "bob+tag@sender.example"),
        ("bob+tag@sender.example", "+", "bob@sender.example"),
        ('"bob+tag"@sender.example', "+", "bob@sender.example"),
        ("bob+a+b@sender.example", "+", "bob@sender.example"),
        ("bob-a+b@sender.example", "+-", "bob@sender.example"),
        ("bob-a+b@sender.example", "+", "bob-a@sender.example"),
        ("+bob@sender.example", "+", "+bob@sender.example"),
        ("++bob@sender.example", "+", "++bob@sender.example"),
        ("B\u00d6B@b\u00fccher.example", "+", "b\u00f6b@xn--bcher-kva.example"),
        ("bo\u0308b@sender.example", "+", "b\u00f6b@sender.example"),
        ("\uff42ob@sender.example", "+", "bob@sender.example"),
        ("prvs=0123456789=Bob+x@sender.example", "+", "bob@sender.example"),
        ('"prvs=0/=bob"@sender.example', "", "bob@sender.example"),
        ("btv1==0123==bob@sender.example", "", "bob@sender.example"),
        ("prvs=bob@sender.example", "", "prvs=bob@sender.example"),
        ("prvs=x=@sender.example", "", "prvs=x=@sender.example"),
        ("bob@[192.0.2.1]", "+", "bob@[192.0.2.1]"),
        ("BOB@stra\u00dfe.example.", "+", "bob@xn--strae-oqa.example"),
        ("postmaster", "+", "postmaster"),
        ("", "+", ""),
    ],
)
def test_the_key_of_a_mailbox(text: str, delimiters: str, key: str) -> None:
    """In doubt two addresses are one mailbox: the limits are for its owner."""
    assert mailbox_key(text, delimiters) == key


def test_only_a_quoted_string_loses_its_quotes() -> None:
    """A quote alone is none."""
    assert [unquote(text) for text in ('"', '""', 'a"b', '"a', '"a"')] == [
        '"',
        "",
        'a"b',
        '"a',
        "a",
    ]


def test_a_name_in_other_scripts_may_end_in_a_dot_of_theirs() -> None:
    """IDNA has four dots."""
    assert ascii_domain("b\u00fccher.example\u3002") == "xn--bcher-kva.example"
    assert ascii_domain("\u3002") == ""


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("stra\u00dfe", "xn--strae-oqa"),
        ("STRA\u1e9eE", "xn--strae-oqa"),
        ("\u03b2\u03cc\u03bb\u03bf\u03c2", "xn--nxasmm1c"),
        ("\u0392\u038c\u039b\u039f\u03a3", "xn--nxasmq6b"),
        ("\u0646\u0627\u0645\u0647\u200c\u0627\u06cc", "xn--mgba3gch31f060k"),
        ("\u0dc1\u0dca\u200d\u0dbb\u0dd3", "xn--10cl1a0b660p"),
        ("\U0001f4a9", "xn--ls8h"),
    ],
    ids=["sharp s", "its capital", "final sigma", "Greek capitals", "ZWNJ", "ZWJ", "?"],
)
def test_a_u_label_and_its_a_label_are_one(name: str, label: str) -> None:
    """UTS 46, non-transitional: as servers and registries that know IDNA 2008 do it."""
    assert ascii_domain(f"{name}.example") == f"{label}.example"
    assert readable(f"a@{name}.example") == readable(f"A@{label.upper()}.EXAMPLE")
    assert readable(name) in readable(f"a@{label}.example")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bob@Sender.Example.", "bob@sender.example."),
        ("bob@XN--BCHER-KVA.example", "bob@b\u00fccher.example"),
        ("J\u00d6RG@BU\u0308CHER.Example", "j\u00f6rg@b\u00fccher.example"),
        ("B\u00fcch", "b\u00fcch"),
        ("*.B\u00dcCHER.*", "*.b\u00fccher.*"),
        ("@xn--bcher-kva.example", "@b\u00fccher.example"),
        ("a@\uff45x.example", "a@ex.example"),
        ("a@xn--\u00fc.example", "a@xn--\u00fc.example"),
        ("a@xn--99999999.example", "a@xn--99999999.example"),
        ("a@xn--abc.example", "a@xn--abc.example"),
        ("a@xn--bcher-2pa.Example", "a@xn--bcher-2pa.example"),
        ("a@b\u00fccher\u3002example", "a@b\u00fccher.example"),
        ("", ""),
    ],
)
def test_people_compare_u_labels_in_lower_case(text: str, expected: str) -> None:
    """RFC 5890 2.3.2.1; a part of a word stays a part, and nonsense stays itself."""
    assert readable(text) == expected
