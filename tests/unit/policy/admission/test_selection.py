"""What a person means by filters, exclusions, names and an order."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from drainer.policy.admission.selection import (
    ExcludePattern,
    MessageIds,
    MessageSummary,
    Selection,
    SendOrder,
    order_key,
)

NOW = datetime(2026, 11, 23, 17, 0, tzinfo=UTC)
MESSAGE = MessageSummary(
    id="0123456789abcdef0123456789abcdef",
    native_id="4BQ8sLx",
    message_id="<m.1@client.example>",
    reverse_path="News@Sender.example",
    queue="deferred",
    arrived=NOW - timedelta(hours=5),
    size=1000,
)
PATHS = ("alice@example.org", "Bob@Example.NET")
BOUNCE = MESSAGE._replace(reverse_path="")


@pytest.mark.parametrize(
    ("selection", "taken"),
    [
        pytest.param({}, True, id="nothing-given"),
        pytest.param({"sender": "news@"}, True, id="part-of-the-sender-in-any-case"),
        pytest.param({"sender": "<news@sender.example>"}, True, id="in-brackets"),
        pytest.param({"sender": "<>"}, False, id="the-null-sender-is-another"),
        pytest.param({"recipient": "BOB@"}, True, id="part-of-a-recipient"),
        pytest.param({"recipient": "carol"}, False, id="no-such-recipient"),
        pytest.param({"domain": "example.net"}, True, id="domain-in-any-case"),
        pytest.param({"domain": "@example.net"}, True, id="domain-with-its-sign"),
        pytest.param({"domain": "ample.net"}, False, id="part-of-a-domain"),
        pytest.param({"older_than": NOW - timedelta(hours=4)}, True, id="older"),
        pytest.param({"older_than": NOW - timedelta(hours=5)}, False, id="not-older"),
        pytest.param({"newer_than": NOW - timedelta(hours=6)}, True, id="newer"),
        pytest.param({"newer_than": NOW - timedelta(hours=5)}, False, id="not-newer"),
        pytest.param({"larger_than": 999}, True, id="larger"),
        pytest.param({"larger_than": 1000}, False, id="not-larger"),
        pytest.param({"smaller_than": 1001}, True, id="smaller"),
        pytest.param({"smaller_than": 1000}, False, id="not-smaller"),
        pytest.param({"queues": ("hold", "deferred")}, True, id="one-of-the-queues"),
        pytest.param({"queues": ("defer",)}, False, id="part-of-a-queue's-name"),
        pytest.param({"domain": "example.net", "recipient": "alice"}, False, id="both"),
    ],
)
def test_everything_that_is_given_must_hold(
    selection: dict[str, object], *, taken: bool
) -> None:
    """The same words as those of `list`."""
    assert Selection(**selection).takes(MESSAGE, PATHS) is taken  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "path", ["u@B\u00dccher.example.", "u@XN--bcher-kva.example"], ids=["U", "A"]
)
@pytest.mark.parametrize(
    "name", ["b\u00fccher.Example", "xn--BCHER-kva.example"], ids=["U", "A"]
)
def test_both_spellings_of_a_domain_select_both(path: str, name: str) -> None:
    """RFC 5890 2.3.2.1: the U-label and the A-label are one domain."""
    sent = MESSAGE._replace(reverse_path=path)
    assert Selection(domain=name).takes_recipient(path)
    assert Selection(recipient=f"u@{name}").takes_recipient(path)
    assert Selection(sender=name).takes_message(sent)
    for pattern in (name, f"*@{name}", f"@{name}", name.replace("example", "*")):
        exclude = (ExcludePattern(pattern),)
        assert not Selection(exclude=exclude).takes_recipient(path)
        assert not Selection(exclude=exclude).takes_message(sent)


def test_what_is_not_known_fits_no_filter_that_asks_for_it() -> None:
    """A damaged message has no recipients, and no size until it is read."""
    assert Selection().takes(MESSAGE, ())
    assert not Selection(domain="example.org").takes(MESSAGE, ())
    assert Selection(larger_than=5000).takes(MESSAGE._replace(size=None), PATHS)
    assert not Selection(larger_than=5000).takes_size(1000)


def test_the_null_sender_is_named_by_its_brackets() -> None:
    """As on the wire."""
    assert Selection(sender="<>").takes(BOUNCE, PATHS)
    assert not Selection(sender="news").takes(BOUNCE, PATHS)


def test_a_queue_is_all_that_lies_below_it() -> None:
    """Named queues and folders have parts."""
    inside = MESSAGE._replace(queue="slow/input/3")
    assert Selection(queues=("slow",)).takes_message(inside)
    assert not Selection(queues=("slo",)).takes_message(inside)


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("4BQ8sLx", True),
        ("4bq8slx", False),
        (MESSAGE.id, True),
        ("01234567", True),
        ("0123456789AB", True),
        ("0123456", False),
        ("<m.1@client.example>", True),
        ("m.1@client.example", True),
        ("", False),
    ],
)
def test_an_id_is_what_list_and_inspect_print(word: str, *, named: bool) -> None:
    """Queue ids keep their case; a drainer id may be cut off."""
    ids = MessageIds(["other", f" {word} "])
    assert bool(ids.name(MESSAGE)) is named
    assert Selection(ids=ids).takes_message(MESSAGE) is named


def test_an_empty_list_of_ids_takes_nothing() -> None:
    """An empty file is not a wish for everything."""
    assert not Selection(ids=MessageIds([])).takes_message(MESSAGE)


@pytest.mark.parametrize(
    ("pattern", "message", "paths"),
    [
        ("alice@example.org", True, ["Bob@Example.NET"]),
        ("example.net", True, ["alice@example.org"]),
        ("@EXAMPLE.org", True, ["Bob@Example.NET"]),
        ("*@example.*", True, []),
        ("*.org", True, ["Bob@Example.NET"]),
        ("a*e@e*e.o*g", True, ["Bob@Example.NET"]),
        ("sender.example", False, list(PATHS)),
        ("news@*", False, list(PATHS)),
        ("recipient:news@*", True, list(PATHS)),
        ("sender:alice@example.org", True, list(PATHS)),
        ("sender:*@sender.example", False, list(PATHS)),
        ("4BQ8sLx", False, list(PATHS)),
        ("<m.1@client.example>", False, list(PATHS)),
        ("<>", True, list(PATHS)),
        ("[192.0.2.1]", True, list(PATHS)),
        ("ample.org", True, list(PATHS)),
    ],
)
def test_what_exclude_leaves_out(
    pattern: str, paths: list[str], *, message: bool
) -> None:
    """A sender or an id takes out the message, a recipient only itself."""
    selection = Selection(exclude=(ExcludePattern(pattern),))
    assert selection.takes_message(MESSAGE) is message
    assert [path for path in PATHS if selection.takes_recipient(path)] == paths


def test_the_null_sender_can_be_excluded() -> None:
    """And nothing else goes with it."""
    selection = Selection(exclude=(ExcludePattern("<>"),))
    assert not selection.takes_message(BOUNCE)
    assert selection.takes_message(MESSAGE)


@pytest.mark.parametrize("text", ["", " ", "*", "@", "*@*", "sender:", "recipient:*"])
def test_an_exclusion_that_means_everything_is_refused(text: str) -> None:
    """It would drain nothing, which nobody asks for."""
    with pytest.raises(ValueError, match="excludes nothing"):
        ExcludePattern(text)


@given(st.text("ab*", min_size=1, max_size=12), st.text("ab", max_size=20))
def test_a_star_is_anything(pattern: str, text: str) -> None:
    """As a regular expression has it, without what makes one slow."""
    regex = ".*".join(map(re.escape, pattern.split("*")))
    found = ExcludePattern(f"{pattern}@x").hits_recipient(f"{text}@x")
    assert found is bool(re.fullmatch(regex, text))


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (SendOrder.OLDEST, ["late", "older", "newer"]),
        (SendOrder.NEWEST, ["newer", "older", "late"]),
        (SendOrder.SMALLEST, ["newer", "late", "older"]),
        (SendOrder.DEADLINE, ["older", "newer", "late"]),
    ],
)
def test_what_an_order_puts_first(order: SendOrder, expected: list[str]) -> None:
    """Past its lifetime nothing is saved by haste: that comes last by the deadline."""
    facts = {
        "newer": (NOW - timedelta(hours=1), 1),
        "late": (NOW - timedelta(days=9), 2),
        "older": (NOW - timedelta(days=4), 3),
    }
    began = NOW - timedelta(days=5)
    keys = {
        name: order_key(order, *those, lifetime_began=began)
        for name, those in facts.items()
    }
    assert sorted(facts, key=keys.__getitem__) == expected


def test_a_selection_is_everything_unless_something_is_given() -> None:
    """So that the usual drain pays nothing for it."""
    assert Selection().is_all
    assert not replace(Selection(), sender="x").is_all
    assert not Selection(ids=MessageIds([])).is_all
