"""Mailboxes in header fields: what is one, and what only looks like it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.mail.addresses import author_of, mailboxes_of, only_author


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("a@b.example", ("a@b.example",)),
        (" A B <a@b.example> ", ("a@b.example",)),
        ('"B, C" <a@b.example>, d@e.example', ("a@b.example", "d@e.example")),
        ('"a b"@c.example', ('"a b"@c.example',)),
        ('"x@y.example" <a@b.example>', ("a@b.example",)),
        ("a@b.example (x@y.example)", ("a@b.example",)),
        ("(a (b) \\) c@d.example) e@f.example", ("e@f.example",)),
        ('(not " quoted) a@b.example', ("a@b.example",)),
        ("friends: a@b.example, c@d.example;", ("a@b.example", "c@d.example")),
        ("undisclosed-recipients:;", ()),
        ("", ()),
        ("a@b@c.example", ("",)),
        ("<a@b.example> <c@d.example>", ("",)),
        ("<>", ("",)),
        ("nobody", ("",)),
        ("a@b.example\x00", ("",)),
        ("<a@b.example", ("a@b.example",)),
        ('"a@b.example', ("",)),
        ("j\u00f6rg@b\u00fccher.example", ("j\u00f6rg@b\u00fccher.example",)),
    ],
)
def test_mailboxes(value: str, found: tuple[str, ...]) -> None:
    """In order; '' stands for what is none, so that it is counted."""
    assert mailboxes_of(value) == found


@given(st.text(alphabet='a@b.<>()",;:\\ ', max_size=60))
def test_the_author_is_the_only_mailbox(value: str) -> None:
    """Of a plain value, which both parsers read alike; of another there is none."""
    author = author_of(value)
    assert not author or mailboxes_of(value) == (author,)


@pytest.mark.parametrize(
    ("values", "author"),
    [
        (["Bob <b@Sender.Example>"], "b@sender.example"),
        ([' "B, C"\r\n <"b"@sender.example>\r\n'], "b@sender.example"),
        (["b@sender.example", "b@sender.example"], ""),
        (["b@sender.example, c@sender.example"], ""),
        (["c@sender.example <b@sender.example>"], ""),
        (["b@sender.example (c@sender.example)"], ""),
        (["g: b@sender.example;"], ""),
        (["b@[192.0.2.1]"], ""),
        (["b@sender.example\udcff"], ""),
        ([], ""),
    ],
)
def test_the_only_author(values: list[str], author: str) -> None:
    """In canonical spelling; '' for several, or one that may be read otherwise."""
    assert only_author(values) == author


@given(st.text(alphabet='a@b.<>()",;:\\ ', max_size=60))
def test_nothing_raises(value: str) -> None:
    """And whatever is found has one domain."""
    assert all(not found or "@" in found for found in mailboxes_of(value))


def test_nesting_costs_no_stack_and_little_time() -> None:
    """A hundred thousand comments, one in the other."""
    started = time.process_time()
    assert mailboxes_of("(" * 100_000 + ")" * 100_000 + "a@b.example") == (
        "a@b.example",
    )
    assert time.process_time() - started < 2
