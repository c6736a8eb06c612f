"""The plain form of a reply's words, and classes of words in patterns."""

import pytest

from drainer.policy.classify.grammar import plain, with_classes
from drainer.policy.classify.normalize import words_of

PLAIN = {
    "Your server isn't welcome": "your server is not welcome",
    "We can't, won't and don\u2019t": "we can not, will not and do not",
    'messages weren"t sent': "messages were not sent",
    "It is on a black list, a block-list": "it is on a blacklist, a blocklist",
    "Grey listed; graylisting": "greylisted; greylisting",
    "mail box, host name, data base, e-mail": "mailbox, hostname, database, email",
    "Log in, or sign-in": "login, or login",
    "the scanner is timed out, a time-out": "the scanner is timed out, a timeout",
    "unauthorised, recognised": "unauthorized, recognized",
    "<u@a.org>: Recipient address rejected: Access denied": "<@>: rcpt: access denied",
    "All recipient addresses rejected : no": "rcpt: no",
    "550 RESOLVER.ADR.RecipNotFound; x": "550 resolver adr recipnotfound; x",
    "See mx1.example.org and a.b.co": "see [fqdn] and [fqdn]",
    "using zen.spamhaus.org": "using [list]",
    "on multi.surbl.org": "on [links]",
    "see www.openspf.example.": "see [spf].",
    "[192.0.2.1 19] Our system": "our system",
    "[192.0.2.1] blocked": "[ip] blocked",
    "come back in 00:04:59": "come back in 00:04:59",
    "from 2001:db8::1, or [::1]": "from [ip], or [ip]",
    "Rejected. (in reply to RCPT TO command)": "rejected.",
    "version 2.0 of it": "version 2-0 of it",
}


@pytest.mark.parametrize(("text", "form"), PLAIN.items())
def test_the_same_words_have_one_form(text: str, form: str) -> None:
    """However a server writes them; and a dot only ends a sentence."""
    assert plain(words_of(text)) == form


def test_the_plain_form_is_plain() -> None:
    """Making it again changes nothing."""
    for text in PLAIN:
        form = plain(words_of(text))
        assert plain(form) == form


def test_a_class_may_use_the_classes_before_it() -> None:
    """Each is one group, so that what follows it applies to all of its words."""
    classes = {"us": "your host|ip", "blocked": "{us} (is )?blocked"}
    found = with_classes(["{blocked} by us", "a{2,3}"], classes)
    assert found == ["(?:(?:your host|ip) (is )?blocked) by us", "a{2,3}"]


def test_a_class_that_is_not_known_is_an_error() -> None:
    """A pattern with a mistake must not read as one that never matches."""
    with pytest.raises(KeyError, match="them"):
        with_classes(["{them} unknown"], {"us": "your host"})
