"""How addresses are shown: the same everywhere, and in texts that quote them."""

import pytest

from drainer.telemetry.privacy import AddressView

SALT = bytes(range(16))
HASHED = AddressView(SALT, plain=False)
BOB, SENDER = "Bob.Smith@example.org", "sender@example.net"
OWN = (BOB, SENDER)
QUOTES = (
    "550 5.1.1 <Bob.Smith@example.org>: Recipient address rejected",
    "550 5.1.1 <bob.smith@EXAMPLE.ORG>... User unknown",
    "550 5.1.1 bob.smith@example.org. no such user",
    "550 5.1.1 <bob.smith>: user unknown",
    "550 5.1.1 user bob.smith unknown",
    "550 no mailbox 'Bob.Smith' here",
    "550 see https://example.org/?to=Bob.Smith%40example.org",
    "550 5.1.1 rfc822;Bob.Smith+40example.org",
    "550 Bob.Smith=40example.org is unknown",
    "550 Bob.Smith&#64;example.org is unknown",
)


@pytest.mark.parametrize("text", QUOTES)
def test_a_quoted_address_is_hashed(text: str) -> None:
    """In any case and encoding, and its local part alone; the code stays."""
    shown = HASHED.text(text, HASHED.own(OWN))
    assert "smith" not in shown.lower()
    assert shown.startswith("550")


@pytest.mark.parametrize(
    "text",
    [
        "550 canary postmaster@known.example refused",
        "rcpt drainer-check-1a2b@example.org",
        "451 greylisted known-good@example.org",
        '550 <"john doe"@example.com> unknown',
        "550 <josé@exämple.org> unbekannt",
        "550 <a@[192.0.2.1]> refused",
        "550 5.1.1 <john> is unknown",
        "550 5.1.1 <john> is unknown: john",
        "554 5.7.1 <john@example.com>: no relay for john",
    ],
)
def test_any_other_mailbox_is_hashed_too(text: str) -> None:
    """Known-good recipients, and those of a list that the primary names."""
    shown = HASHED.text(text, HASHED.own(OWN))
    assert "@" not in shown
    for part in ("postmaster@", "known-good", "john", "doe", "jos", "drainer-check"):
        assert part not in shown


def test_the_hash_in_a_text_is_that_of_the_attribute() -> None:
    """So that a search for it finds both; in the case of the envelope."""
    shown = HASHED.text("550 <bob.smith@example.org>: unknown", HASHED.own(OWN))
    assert shown == f"550 <{HASHED.address(BOB)}>: unknown"


def test_a_quoted_local_part_is_found_without_its_quotes() -> None:
    """Servers drop the quotes."""
    own = ('"john doe"@example.org',)
    shown = HASHED.text("550 <john doe@example.org>: unknown", HASHED.own(own))
    assert shown == f"550 <{HASHED.address(own[0])}>: unknown"


@pytest.mark.parametrize(
    "text",
    [
        "250 2.0.0 Ok: queued as 4Fsdf72",
        "421 4.3.2 mx.example.org shutting down",
        "354 End data with <CR><LF>.<CR><LF>",
        "550 5.1.1 <postmaster>: refused by <mx.example.org>",
        "554 5.7.1 <unknown[192.0.2.1]>: Client host rejected",
        "550 5.1.1 user unknown in local recipient table",
        "451 4.7.1 try again in 300 s, see RFC 5321",
    ],
)
def test_what_names_nobody_stays(text: str) -> None:
    """Hosts, codes, queue ids; and a role is a word of many replies."""
    assert HASHED.text(text, HASHED.own(("user@example.org", "bo@x.org"))) == text


def test_plain_shows_everything() -> None:
    """The operator has chosen it."""
    view = AddressView(SALT, plain=True)
    assert [view.text(text, view.own(OWN)) for text in QUOTES] == list(QUOTES)
    assert view.address("") == "<>"
    assert view.address(BOB) == BOB


def test_another_ledger_has_other_hashes() -> None:
    """The key is the ledger's own."""
    other = AddressView(bytes(16), plain=False)
    assert other.address(BOB) != HASHED.address(BOB)
    assert len(HASHED.address(BOB)) == 16


def test_a_hostile_reply_takes_no_time() -> None:
    """Patterns with repetitions, on the longest texts."""
    for text in ("a" * 100_000, "a@" * 50_000, '"' * 100_000, "a=40" * 9999):
        HASHED.text(text, HASHED.own(OWN))
