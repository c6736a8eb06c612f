"""Replies: lines, codes, enhanced codes, and text that nobody may trust."""

import string
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.mail.reply import (
    MAX_TEXT,
    Lost,
    ProtocolError,
    Reply,
    Stage,
    as_said,
    parse_reply,
    printable,
)

PARSED: dict[str, tuple[bytes, Reply]] = {
    "one line": (b"250 ok\r\n", Reply(code=250, text="ok")),
    "no text": (b"250\r\n", Reply(code=250)),
    "a blank for a text": (b"250 \r\n", Reply(code=250)),
    "no line end at all": (b"250 ok", Reply(code=250, text="ok")),
    "a bare LF": (b"250 ok\n", Reply(code=250, text="ok")),
    "two CRs": (b"250 ok\r\r\n", Reply(code=250, text="ok")),
    "leading blanks": (b" \t250 ok\r\n", Reply(code=250, text="ok")),
    "many lines": (b"250-a\r\n250-\r\n250 b\r\n", Reply(code=250, text="a b")),
    "a bare last code": (b"250-a\r\n250\r\n", Reply(code=250, text="a")),
    "enhanced": (
        b"550 5.1.1 no such user\r\n",
        Reply(code=550, enhanced="5.1.1", text="no such user"),
    ),
    "enhanced alone": (b"550 5.1.1\r\n", Reply(code=550, enhanced="5.1.1")),
    "enhanced on every line": (
        b"550-5.1.1 no\r\n550-5.1.1 such\r\n550 5.1.1 user\r\n",
        Reply(code=550, enhanced="5.1.1", text="no such user"),
    ),
    "three digits": (
        b"450 4.7.650 slow down\r\n",
        Reply(code=450, enhanced="4.7.650", text="slow down"),
    ),
    "a foreign class is a hint": (
        b"550 4.1.1 x\r\n",
        Reply(code=550, hint="4.1.1", text="x"),
    ),
    "a success class is a hint": (
        b"550 2.1.5 x\r\n",
        Reply(code=550, hint="2.1.5", text="x"),
    ),
    "leading zeros are no enhanced code": (
        b"550 5.01.1 x\r\n",
        Reply(code=550, text="5.01.1 x", hint="5.01.1"),
    ),
    "four digits are no enhanced code": (
        b"550 5.1.1000 x\r\n",
        Reply(code=550, text="5.1.1000 x"),
    ),
    "an enhanced code with a colon is a hint": (
        b"550 5.1.1: x\r\n",
        Reply(code=550, text="5.1.1: x", hint="5.1.1"),
    ),
    "qmail's way": (
        b"553 sorry, no mailbox here (#5.1.1)\r\n",
        Reply(code=553, text="sorry, no mailbox here (#5.1.1)", hint="5.1.1"),
    ),
    "a number sign first": (
        b"550 #5.1.1 x\r\n",
        Reply(code=550, text="#5.1.1 x", hint="5.1.1"),
    ),
    "an address is no enhanced code": (
        b"550 10.5.1.1 is listed\r\n",
        Reply(code=550, text="10.5.1.1 is listed"),
    ),
    "nor is one that begins like one": (
        b"550 5.1.1.9 is listed\r\n",
        Reply(code=550, text="5.1.1.9 is listed"),
    ),
    "mixed codes: the last one counts": (
        b"250-ok\r\n550 no\r\n",
        Reply(code=550, text="ok no", mixed=True),
    ),
    "UTF-8": ("550 für\r\n".encode(), Reply(code=550, text="für")),
    "Latin-1": (b"550 f\xfcr\r\n", Reply(code=550, text="für")),
    "an unknown code": (b"299 hm\r\n", Reply(code=299, text="hm")),
    "59x": (b"599 hm\r\n", Reply(code=599, text="hm")),
}


@pytest.mark.parametrize(("raw", "reply"), PARSED.values(), ids=list(PARSED))
def test_a_reply_is_parsed(raw: bytes, reply: Reply) -> None:
    """RFC 5321 4.2 and RFC 2034 4, and what servers really send."""
    assert parse_reply(raw) == reply


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n",
        b"",
        b"ok\r\n",
        b"25 ok\r\n",
        b"2500 ok\r\n",
        b"250ok\r\n",
        b"150 x\r\n",
        b"650 x\r\n",
        b"099 x\r\n",
        b"250-ok\r\nwhat\r\n",
        b"250-ok\r\n\r\n250 ok\r\n",
        b"\xb2\xb5\xb0 x\r\n",
        "２５０ x\r\n".encode(),  # noqa: RUF001
        b"-250 x\r\n",
        b"+OK\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
    ],
)
def test_what_is_no_reply_is_a_protocol_error(raw: bytes) -> None:
    """1xx, 6xx and anything without a code mean nothing: they never judge a message."""
    with pytest.raises(ProtocolError):
        parse_reply(raw)


@given(st.binary(max_size=200))
def test_no_octets_do_more_than_a_protocol_error(raw: bytes) -> None:
    """Hostile text is parsed or refused, never a crash; its class is its first digit."""  # noqa: E501
    try:
        reply = parse_reply(raw)
    except ProtocolError:
        return
    assert reply.category in (2, 3, 4, 5)
    assert reply.enhanced == "" or reply.enhanced[0] == str(reply.category)


@given(
    st.integers(200, 599),
    st.lists(
        st.text(alphabet=string.ascii_letters + " .-", max_size=30),
        min_size=1,
        max_size=5,
    ),
)
def test_a_written_reply_is_read_back(code: int, texts: list[str]) -> None:
    """Code and words of any well-formed reply survive, whatever its lines."""
    lines = [f"{code}-{text}\r\n" for text in texts[:-1]] + [f"{code} {texts[-1]}\r\n"]
    reply = parse_reply("".join(lines).encode())
    assert reply.code == code
    assert reply.text.split() == " ".join(texts).split()
    assert not reply.mixed


def test_long_replies_fill_no_memory() -> None:
    """The words of a hostile primary are cut, and long replies are not kept."""
    tracemalloc.start()
    for n in range(500):
        reply = parse_reply(b"250 %d " % n + b"x" * 30_000)
        assert len(reply.text) == MAX_TEXT
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1_000_000


# ---- how it is shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("für", "für"),
        ("\x1b[2Jx", "\\x1b[2Jx"),
        ("a\r\nb\x00", "a\\r\\nb\\x00"),
        ("a\u202eb", "a\\u202eb"),
        ("a\u2066b", "a\\u2066b"),
        ("\x9b31m", "\\x9b31m"),
    ],
)
def test_controls_are_escaped(text: str, shown: str) -> None:
    """A terminal, a log or a header may show what a peer said."""
    assert printable(text) == shown


def test_a_long_text_is_cut() -> None:
    """And says so."""
    assert printable("x" * 50, limit=10) == "x" * 10 + "..."


@given(st.text(max_size=100))
def test_printable_text_is_printable(text: str) -> None:
    """Whatever a peer sends."""
    assert printable(text).isprintable()


def test_a_reply_reads_as_it_was_sent() -> None:
    """Code, enhanced code, words."""
    assert str(parse_reply(b"550 5.1.1 no user\r\n")) == "550 5.1.1 no user"
    assert str(parse_reply(b"250\r\n")) == "250"


def test_a_loss_says_why() -> None:
    """In one word, and in the words of the system if there are any."""
    assert str(Lost(reason="closed")) == "closed"
    assert str(Lost(reason="timeout", detail="30 s")) == "timeout (30 s)"


def test_stages_before_mail() -> None:
    """Connect, banner, EHLO, STARTTLS, AUTH: no message has been named."""
    early = [stage for stage in Stage if stage.before_mail]
    assert early == [
        Stage.CONNECT,
        Stage.BANNER,
        Stage.EHLO,
        Stage.STARTTLS,
        Stage.AUTH,
        Stage.FORWARD,
    ]


def test_what_was_kept_of_a_reply_is_told_from_words_of_ours() -> None:
    """No report quotes the primary with what we said of its silence."""
    reply = parse_reply(b"550 5.1.1 no user\r\n")
    assert as_said(str(reply)) == reply
    lost = str(Lost(reason="timeout", detail="30 s"))
    assert as_said(lost) == lost
    assert as_said("") == ""
