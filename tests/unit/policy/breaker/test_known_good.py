"""Addresses that must exist: the operator's, and those that were delivered to."""

import pytest

from drainer.policy.breaker.known_good import (
    MAX_CANARY,
    MAX_LEARNT,
    KnownGoodRecipients,
)

GOOD = ("Root@Example.org", "boss@example.org", "a@example.net", "b@example.com")


def test_the_operators_addresses_are_asked_first() -> None:
    """Of the domain in question; of any, when the route is."""
    known = KnownGoodRecipients(GOOD)
    known.learn("new@example.org", "example.org")
    assert known.to_ask("example.org") == GOOD[:2]
    assert known.to_ask("example.com") == ("b@example.com",)
    assert known.to_ask("") == GOOD[:MAX_CANARY]


def test_without_one_the_latest_that_were_delivered_to_are() -> None:
    """One of a domain, three of the route."""
    known = KnownGoodRecipients()
    assert known.to_ask("") == ()
    assert known.to_ask("d1.example") == ()
    for n in range(6):
        known.learn(f"old@d{n}.example", f"d{n}.example")
        known.learn(f"new@d{n}.example", f"d{n}.example")
    assert known.to_ask("d1.example") == ("new@d1.example",)
    assert known.to_ask("") == tuple(f"new@d{n}.example" for n in (3, 4, 5))
    assert known.to_ask("other.example") == ()
    known.learn("again@d1.example", "d1.example")
    assert known.to_ask("") == (
        "new@d4.example",
        "new@d5.example",
        "again@d1.example",
    )


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("Root@example.ORG", "contradiction"),
        ("root@example.org", ""),  # the case of a local part may matter
        ("Postmaster@any.example", "contradiction"),
        ("postmaster", "contradiction"),
        ("taken@EXAMPLE.org", "learnt"),
        ("Taken@example.org", ""),
        ("stranger@example.org", ""),
    ],
)
def test_an_unknown_user_may_contradict_what_is_known(address: str, kind: str) -> None:
    """The operator knows for sure; what was learnt may be gone by now."""
    known = KnownGoodRecipients(GOOD)
    known.learn("taken@example.org", "example.org")
    assert known.contradicts(address) == kind


def test_what_was_learnt_and_refused_is_forgotten() -> None:
    """An account that was closed today is suspicious once."""
    known = KnownGoodRecipients()
    known.load(["bob@example.org", "amy@Example.org"])
    assert known.contradicts("bob@example.org") == "learnt"
    known.forget("bob@example.org")
    assert known.contradicts("bob@example.org") == ""
    assert known.to_ask("example.org") == ("amy@Example.org",)
    known.forget("amy@Example.org")
    assert known.to_ask("example.org") == ()
    known.forget("stranger@nowhere.example")


def test_it_asks_as_the_operator_says_or_as_one_whose_mail_was_taken() -> None:
    """Many servers exempt the null sender from every restriction."""
    assert KnownGoodRecipients(sender="check@example.com").sender == "check@example.com"
    known = KnownGoodRecipients()
    assert known.sender == ""
    known.learn("bob@example.org", "example.org", "amy@example.com")
    known.learn("bob@example.org", "example.org")  # a bounce of somebody
    assert known.sender == "amy@example.com"


def test_what_no_plain_command_can_carry_is_not_asked_for() -> None:
    """A canary speaks no SMTPUTF8: the refusal would tell of that alone."""
    known = KnownGoodRecipients()
    known.learn("j\u00f6rg@example.org", "example.org", "\u00f6@example.com")
    assert known.to_ask("example.org") == ()
    assert known.sender == ""
    assert known.contradicts("j\u00f6rg@example.org") == "learnt"


def test_what_is_learnt_has_an_end() -> None:
    """A queue of millions costs no more memory than one of thousands."""
    known = KnownGoodRecipients()
    known.load(f"u{n}@example.org" for n in range(MAX_LEARNT + 1))
    assert known.contradicts(f"u{MAX_LEARNT - 1}@example.org") == "learnt"
    assert known.contradicts(f"u{MAX_LEARNT}@example.org") == ""
    assert known.to_ask("example.org") == (f"u{MAX_LEARNT}@example.org",)


def test_both_spellings_of_a_domain_are_one_address() -> None:
    """RFC 5890 2.3.2.1; the canary asks for the A-label, which needs no SMTPUTF8."""
    known = KnownGoodRecipients(["boss@b\u00fccher.example"])
    assert known.to_ask("xn--bcher-kva.example") == ("boss@xn--bcher-kva.example",)
    assert known.contradicts("boss@xn--bcher-kva.example") == "contradiction"
    known.learn(
        "a@m\u00fcller.example", "xn--mller-kva.example", "s@m\u00fcller.example"
    )
    assert known.to_ask("xn--mller-kva.example") == ("a@xn--mller-kva.example",)
    assert known.sender == "s@xn--mller-kva.example"
    known.forget("a@m\u00fcller.example")
    assert known.to_ask("xn--mller-kva.example") == ()


def test_a_primary_that_forgets_addresses_has_lost_users() -> None:
    """Those themselves; two of a domain speak for the others, until one is back."""
    known = KnownGoodRecipients()
    known.load(["a@one.test", "b@one.test", "c@two.test"])
    known.forget("x@one.test")  # it was never accepted
    known.forget("a@one.test")
    known.forget("c@two.test")
    lost = [each for each in ("a", "b", "x") if known.has_lost(f"{each}@one.test")]
    assert lost == ["a"]
    known.forget("b@one.test")
    assert known.has_lost("x@one.test")
    assert not known.has_lost("x@two.test")
    known.learn("b@one.test", "one.test")
    assert not known.has_lost("x@one.test")
