"""Mailboxes, DSN parameters and VERP."""

import string
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.mail.envelope import (
    AddressError,
    Recipient,
    ascii_form,
    domain_of,
    from_xtext,
    is_ascii,
    parse_mailbox,
    quote_mailbox,
    unique_recipients,
    utf8_xtext,
    verp_sender,
    wire_mailbox,
    xtext,
)


@pytest.mark.parametrize(
    ("text", "mailbox"),
    [
        ("a@b.org", "a@b.org"),
        ("<a@b.org>", "a@b.org"),
        (' "a b"@c.org ', '"a b"@c.org'),
        ('"a@b"@c.org', '"a@b"@c.org'),
        ("a@[192.0.2.1]", "a@[192.0.2.1]"),
        ("a@[IPv6:2001:db8::1]", "a@[IPv6:2001:db8::1]"),
        ("Postmaster", "Postmaster"),
        ("jörg@müller.example", "jörg@müller.example"),
    ],
)
def test_a_mailbox_on_the_wire_is_taken_as_it_is(text: str, mailbox: str) -> None:
    """RFC 5321 4.1.2, RFC 6531 3.3; Postmaster needs no domain (4.1.1.3)."""
    assert parse_mailbox(text) == mailbox


@pytest.mark.parametrize(
    "text",
    ["", "a", "@b.org", "a@", "a b@c.org", "a@b c", "a@b\r\nRCPT", "a\0@b", "a@b>c",
     "a" * 600 + "@b.org", "a@-b.org", "a..b@c.org", '"a"b"@c.org', "a@b..c"],
)  # fmt: skip
def test_what_could_break_a_command_is_refused(text: str) -> None:
    """Controls, blanks, brackets, endless or half addresses never reach the wire."""
    with pytest.raises(AddressError):
        parse_mailbox(text)


def test_an_atom_and_a_domain_hold_what_the_rfcs_let_stand_in_them() -> None:
    """RFC 5321 4.1.2 by way of RFC 5322 3.2.3, RFC 6531 3.3."""
    letters = string.ascii_letters + string.digits
    for code in (*range(0x180), *range(0x180, sys.maxunicode + 1, 97)):
        char = chr(code)
        international = code > 0x7F and not 0xD800 <= code <= 0xDFFF
        is_atext = char in letters + "!#$%&'*+/=?^_`{|}~-" or international
        assert _is_mailbox(f"a{char}b@x.org") == (is_atext or char == "."), ascii(char)
        is_ldh = char in letters + "-_." or international
        assert _is_mailbox(f"ab@x{char}y.org") == is_ldh, ascii(char)


def _is_mailbox(text: str) -> bool:
    try:
        return parse_mailbox(text) == text
    except AddressError:
        return False


@given(st.text(max_size=30), st.sampled_from(["x.org", "[192.0.2.1]", "bad domain"]))
def test_a_quoted_mailbox_parses_again(local: str, domain: str) -> None:
    """Whatever Postfix stored either becomes a valid mailbox or is refused."""
    try:
        mailbox = quote_mailbox(f"{local}@{domain}")
    except AddressError:
        return
    assert parse_mailbox(mailbox) == mailbox
    assert not any(char in mailbox for char in "\r\n\0")


def test_a_mailbox_that_quoting_makes_too_long_is_refused() -> None:
    """What counts is the form that stands on the wire."""
    with pytest.raises(AddressError, match="longer"):
        quote_mailbox('"' * 300 + "@d.org")


def test_a_local_part_is_quoted_only_when_it_must_be() -> None:
    """A dot-string stays; anything else becomes a quoted string."""
    assert quote_mailbox("a.b+c@d.org") == "a.b+c@d.org"
    assert quote_mailbox(".a@d.org") == '".a"@d.org'
    assert quote_mailbox("a\\b@d.org") == '"a\\\\b"@d.org'


def test_the_domain_is_compared_without_case_and_final_dot() -> None:
    """Null sender and postmaster have none."""
    assert domain_of('"a@b"@Example.ORG.') == "example.org"
    assert domain_of("") == domain_of("postmaster") == ""


def test_ascii_mailboxes_need_no_smtputf8() -> None:
    """RFC 6531 3.3."""
    assert is_ascii("a@b.org", "")
    assert not is_ascii("a@b.org", "ö@b.org")


def test_text_that_looks_encoded_is_encoded_again() -> None:
    """A plus sign with two digits behind it is an address like any other."""
    assert xtext("a+2B@x.example") == "a+2B2B@x.example"
    assert from_xtext(xtext("a+2B@x.example").encode()) == "a+2B@x.example"


@given(st.text(alphabet=st.characters(max_codepoint=0x17F)))
def test_xtext_holds_no_octet_that_a_command_could_take_amiss(text: str) -> None:
    """RFC 3461 4; decoding gives the text back."""
    encoded = xtext(text)
    assert all(0x21 <= ord(c) <= 0x7E and c != "=" for c in encoded)
    octets = bytearray()
    rest = encoded
    while rest:
        step = 3 if rest[0] == "+" else 1
        octets.append(int(rest[1:3], 16) if step == 3 else ord(rest[0]))
        rest = rest[step:]
    assert octets.decode() == text


def test_orcpt_is_encoded_by_its_type() -> None:
    """RFC 3461 4.2 for rfc822, RFC 6533 3 for utf-8; without a type there is none."""
    given_ = Recipient(forward_path="a@b.org", orcpt="rfc822;Bob+tag@d.org")
    assert given_.orcpt_xtext() == "rfc822;Bob+2Btag@d.org"
    utf8 = Recipient(forward_path="a@b.org", orcpt="utf-8;jörg@d.org")
    assert utf8.orcpt_xtext() == "utf-8;j\\x{F6}rg@d.org"
    assert Recipient(forward_path="a@b.org", orcpt="bob").orcpt_xtext() == ""
    assert utf8_xtext("a\\b") == "a\\x{5C}b"


@pytest.mark.parametrize(
    ("sender", "recipient", "delimiters", "expected"),
    [
        ("list@l.org", "u@d.org", "+=", "list+u=d.org@l.org"),
        ("list@l.org", '"a b"@d.org', "+=", '"list+a b=d.org"@l.org'),
        ("", "u@d.org", "+=", ""),
        ("list@l.org", "postmaster", "+=", "list@l.org"),
        ("list@l.org", "u@d.org", "", "list@l.org"),
    ],
)
def test_verp_names_the_recipient_in_the_sender(
    sender: str, recipient: str, delimiters: str, expected: str
) -> None:
    """Postfix VERP_README; what has no domain is left alone."""
    assert verp_sender(sender, recipient, delimiters) == expected


def test_a_recipient_is_collected_once() -> None:
    """The first one with its parameters stays, the order too."""
    given = (("a@b", ("NEVER",)), ("c@d", ()), ("a@b", ()))
    found = unique_recipients(
        Recipient(forward_path=path, notify=notify) for path, notify in given
    )
    assert [each.forward_path for each in found] == ["a@b", "c@d"]
    assert found[0].notify == ("NEVER",)


def test_a_domain_is_no_longer_than_a_name_can_be() -> None:
    """255 bytes (RFC 5321 4.5.3.1.2): it is a key of the ledger, too."""
    longest = "a@" + ".".join(["x" * 63] * 3) + "." + "y" * 63
    assert parse_mailbox(longest) == longest
    german = ".".join(["\u00fc" * 32] * 4)
    for path in (f"{longest}z", f"{longest}.", f"a@{german}"):
        with pytest.raises(AddressError, match="bad domain"):
            parse_mailbox(path)


def test_a_label_is_no_longer_than_the_dns_allows() -> None:
    """63 bytes as an A-label (RFC 1035 2.3.4)."""
    for label in ("x" * 63, "\u00fc" * 50):
        assert parse_mailbox(f"a@{label}.org") == f"a@{label}.org"
    for label in ("x" * 64, "\u00fc" * 60):
        with pytest.raises(AddressError, match="bad domain"):
            parse_mailbox(f"a@{label}.org")


@pytest.mark.parametrize(
    "literal",
    ["[]", "[x]", "[1.2.3]", "[256.1.1.1]", "[::1]", "[IPv6:x]", "[IPv6:1.2.3.4]",
     "[192.0.2.1", "[IPv6:fe80::1%eth0]", "[x:192.0.2.1]"],
)  # fmt: skip
def test_an_address_literal_is_an_address(literal: str) -> None:
    """RFC 5321 4.1.3; no tag but IPv6 is registered."""
    with pytest.raises(AddressError, match="bad domain"):
        parse_mailbox(f"a@{literal}")


def test_an_address_says_what_is_wrong_with_it() -> None:
    """An operator reads it in `why`."""
    faults = {
        "a\udcff@b.org": "outside of UTF-8",
        "a\0@b.org": "control character",
        '""@b.org': "no local part",
        "a@": "bad domain",
        "a": "no domain",
    }
    for text, fault in faults.items():
        with pytest.raises(AddressError, match=fault):
            parse_mailbox(text)
    with pytest.raises(AddressError, match="no local part"):
        quote_mailbox("@b.org")


STORED = {
    "a..b@x.org": '"a..b"@x.org',
    "x.@x.org": '"x."@x.org',
    ".x@x.org": '".x"@x.org',
    '"two words".x@x.org': '"two words.x"@x.org',
    'a."b c"@x.org': '"a.b c"@x.org',
    "john doe@x.org": '"john doe"@x.org',
    '"a b"@x.org': '"a b"@x.org',
    '"open@x.org': '"\\"open"@x.org',
    "a@b@x.org": '"a@b"@x.org',
    "<a..b@x.org>": '"a..b"@x.org',
}


@pytest.mark.parametrize("stored", STORED)
def test_what_a_server_stored_is_quoted_for_the_wire(stored: str) -> None:
    """RFC 5321 4.1.2: quoting changes the form and not the mailbox."""
    assert wire_mailbox(stored) == STORED[stored]
    assert wire_mailbox(wire_mailbox(stored)) == STORED[stored]


@pytest.mark.parametrize(
    "stored",
    ["", "bob", "@x.org", "@a,@b:c@d.org", "a@x org", "<a@x.org", "a@x.org>",
     "a@x.org, b@x.org", "a@x.org;b@x.org"],
)  # fmt: skip
def test_what_names_no_mailbox_is_an_error(stored: str) -> None:
    """Without a local part or a domain there is nothing to quote; nor in a list."""
    with pytest.raises(AddressError):
        wire_mailbox(stored)


@pytest.mark.parametrize(
    "mailbox",
    [
        "a@müller.example",
        "a@MÜLLER.example.",
        "a@xn--mller-kva.Example",
        "a@mu\u0308ller\uff0eEXAMPLE",
        "a@\uff4d\u00fcller\u3002example",
    ],
)
def test_a_domain_has_one_spelling(mailbox: str) -> None:
    """RFC 5890 2.3.2.1: the U-label and the A-label are one domain."""
    assert domain_of(mailbox) == "xn--mller-kva.example"


@pytest.mark.parametrize(
    ("mailbox", "expected"),
    [
        ("a@müller.example", "a@xn--mller-kva.example"),
        ("jörg@müller.example", "jörg@xn--mller-kva.example"),
        ("a@straße.example", "a@xn--strae-oqa.example"),
        ("a@\ufffd.example", "a@\ufffd.example"),
        ("A@Example.ORG", "A@Example.ORG"),
        ("", ""),
    ],
)
def test_only_a_domain_gets_a_labels(mailbox: str, expected: str) -> None:
    """A local part has no ASCII form, nor has what is no DNS name."""
    assert ascii_form(mailbox) == expected
