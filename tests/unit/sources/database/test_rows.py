"""From rows to messages: any value whatever makes a message, never an exception."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.errors import MessageUnreadable, UsageError
from drainer.mail.message import PROBLEMS, Message
from drainer.sources.database.mapping import TableMapping, mapping_of
from drainer.sources.database.rows import (
    arrival,
    bytes_of,
    mailbox,
    message_of,
)

VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.decimals() | st.datetimes() | st.lists(st.text() | st.none() | st.integers())
    | st.dictionaries(st.text(), st.text()) | st.just("a@b.example") | st.just("[[[")
    | st.just("\udcff") | st.just("9" * 400)
)  # fmt: skip
KEYS = ("reverse_path", "recipients", "arrived", "client_address", "login",
        "message_id", "body", "smtputf8", "envid", "ret", "verp")  # fmt: skip


def read(
    kind: str,
    row: dict[str, Any],
    children: list[dict[str, Any]] | None = None,
    *,
    built_in: bool = False,
) -> Message:
    """Return the message of a row of a table."""
    mapping = TableMapping(table="t", is_built_in=built_in, recipients_format=kind)
    return message_of("sqlite:////x", mapping, row, children or [])


@given(
    st.fixed_dictionaries(dict.fromkeys(KEYS, VALUES)),
    VALUES,
    st.sampled_from(["one", "delimited", "json", "array", "table"]),
    st.booleans(),
    st.lists(st.fixed_dictionaries({"forward_path": VALUES, "orcpt": VALUES,
                                    "notify": VALUES}), max_size=3),
)  # fmt: skip
def test_any_row_is_a_message(
    row: dict[str, Any],
    head: object,
    kind: str,
    built_in: bool,  # noqa: FBT001
    children: list[dict[str, Any]],
) -> None:
    """With a problem that is known, or with an envelope that may be sent."""
    row |= {"id": 7, "size": 3, "head": head}
    message = read(kind, row, children, built_in=built_in)
    assert len(message.id) == 32
    assert message.native_id.isprintable()
    assert message.arrived.tzinfo is not None
    if message.problem is None:
        assert message.envelope.recipients
    else:
        assert message.problem.code in PROBLEMS


@given(VALUES | st.text(st.characters(codec="utf-8")))
def test_octets_come_through_or_are_refused(value: object) -> None:
    """Octets as they are; a text is that of a database in UTF-16."""
    try:
        found = bytes_of(value)
    except MessageUnreadable as error:
        assert error.code == "corrupt"  # noqa: PT017 - hypothesis: both may happen
        return
    assert found == (value if isinstance(value, bytes) else str(value).encode(
        errors="surrogateescape"))  # fmt: skip
    assert isinstance(value, bytes | str)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (Decimal("1.5"), datetime(1970, 1, 1, 0, 0, 1, 500000, UTC)),
        (datetime(2026, 1, 2), datetime(2026, 1, 2, tzinfo=UTC)),  # noqa: DTZ001
        ("2026-01-02T03:00:00+01:00", datetime(2026, 1, 2, 2, tzinfo=UTC)),
        (
            datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=2))),
            datetime(2026, 1, 1, 22, tzinfo=UTC),
        ),
    ],
)
def test_arrival(value: object, moment: datetime) -> None:
    """Without a zone it is UTC; a number is seconds."""
    assert arrival(value) == moment


def test_mailboxes_are_taken_in_wire_form_or_unquoted() -> None:
    """Each reaches the wire as it must stand there."""
    assert mailbox("<a@b.example>") == "a@b.example"
    assert mailbox('"a b"@c.example') == '"a b"@c.example'
    assert mailbox("a b@c.example") == '"a b"@c.example'


def test_the_identity_of_an_imported_message_is_its_own() -> None:
    """So that a ledger knows it from the spool it came from."""
    row = {"id": 1, "size": 0, "head": b"", "arrived": 0, "reverse_path": ""}
    name = "0123456789abcdef" * 2
    found = read("one", row | {"message_id": f"drainer:{name}"}, built_in=True)
    assert found.id == name
    other = read("one", row | {"message_id": f"drainer:{name}0"}, built_in=True)
    assert other.id != name


@pytest.mark.parametrize(
    ("listed", "paths"),
    [
        ('a@b, "c,d"@e , f@g', ["a@b", '"c,d"@e', "f@g"]),
        ('"c\\",d"@e,f@g', ['"c\\",d"@e', "f@g"]),
        ('a"b@c,d@e', ['"a\\"b"@c', "d@e"]),
    ],
)
def test_a_quoted_delimiter_is_part_of_an_address(
    listed: str, paths: list[str]
) -> None:
    """RFC 5321 4.1.2; a quote alone hides nobody beside it."""
    row = {"id": 1, "size": 1, "head": b"", "arrived": 0, "reverse_path": ""}
    found = read("delimited", row | {"recipients": listed})
    assert [each.forward_path for each in found.envelope.recipients] == paths


def test_a_row_without_a_content_is_no_message() -> None:
    """Neither NULL nor nothing at all: a backup adds a field to each mail."""
    row = {"id": 1, "head": None, "arrived": 0, "reverse_path": "", "recipients": "a@b"}
    for size in (None, 0):
        found = read("one", row | {"size": size})
        assert found.problem is not None
        assert found.problem.detail == "its content is empty"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"state": "s"}, "either table or query"),
        ({"table": "t", "query": "q"}, "either table or query"),
        ({"table": "t", "id": "i"}, "reverse_path, recipients, content, arrived"),
    ],
)
def test_a_mapping_that_is_not_whole(options: dict[str, str], words: str) -> None:
    """What is missing is named."""
    with pytest.raises(UsageError, match=words):
        mapping_of(options)
