"""Queue files of Haraka, parsed as bytes."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.errors import MessageUnreadable
from drainer.mail.content import dot_stuff
from drainer.sources.haraka.message import parse_name, parse_todo, unstuff
from tests.support.spools.queue_kits import address, todo

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.binary())
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    """Nothing but MessageUnreadable leaves the parser."""
    with suppress(MessageUnreadable):
        parse_todo(data)


@given(st.sampled_from(sorted(todo("u"))), JSON)
def test_any_value_may_stand_anywhere(key: str, value: object) -> None:
    """Types are not trusted."""
    with suppress(MessageUnreadable):
        parse_todo(json.dumps({**todo("u"), key: value}).encode())


@given(st.sampled_from(["user", "host"]), JSON)
def test_any_value_may_stand_in_an_address(key: str, value: object) -> None:
    """A recipient that cannot be written is told, the others stay."""
    broken = {**address("r", "example.org"), key: value}
    recipients = [broken, address("good", "example.org")]
    found = parse_todo(json.dumps({**todo("u"), "rcpt_to": recipients}).encode())
    paths = [each.forward_path for each in found.envelope.recipients]
    assert "good@example.org" in paths
    assert len(paths) + bool(found.fault) == 2 or len(set(map(str, recipients))) == 2


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b"[" * 100_000, b'{"mail_from": {}}', b"1" * 5000, b"\xff"],
    ids=["nothing", "list", "empty", "nested", "no recipients", "number", "bytes"],
)
def test_what_is_no_todo_is_corrupt(data: bytes) -> None:
    """Each says why."""
    with pytest.raises(MessageUnreadable, match="corrupt"):
        parse_todo(data)


@pytest.mark.parametrize("value", [float("nan"), -1, 10**30, "x", None, True])
def test_a_time_that_is_none_is_no_error(value: object) -> None:
    """The message is listed all the same."""
    found = parse_todo(json.dumps({**todo("u"), "queue_time": value}).encode())
    assert 0 <= found.queued < 1


@pytest.mark.parametrize(
    ("user", "path"),
    [
        ("joe", "joe@example.org"),
        ('"b ob"', '"b ob"@example.org'),
        ("b ob", '"b ob"@example.org'),
        ("a@b", '"a@b"@example.org'),
    ],
)
def test_local_parts_are_quoted_once(user: str, path: str) -> None:
    """Some versions store the quotes, some do not."""
    values = {**todo("u"), "rcpt_to": [address(user, "example.org")]}
    found = parse_todo(json.dumps(values).encode())
    assert [each.forward_path for each in found.envelope.recipients] == [path]


@pytest.mark.parametrize(
    ("name", "tag", "attempts"),
    [
        ("1795479294327_1795479358368_1_20272_7StG8y_2_vm", "7StG8y", 1),
        ("1484878079415_0_12345_8888.mta1", "1484878079415_0_12345_8888.mta1", 0),
    ],
)
def test_both_kinds_of_names_are_read(name: str, tag: str, attempts: int) -> None:
    """The new one has a tag that stays."""
    found = parse_name(name)
    assert found is not None
    assert (found.tag, found.attempts) == (tag, attempts)


@given(st.text())
def test_other_names_are_no_error(name: str) -> None:
    """They are opaque."""
    parse_name(name)


@given(st.lists(st.sampled_from([b".", b"..", b"\r\n", b"a", b"\r", b""])))
def test_unstuffing_undoes_stuffing(pieces: list[bytes]) -> None:
    """However the content is cut into pieces."""
    whole = b"".join(pieces).replace(b"\r", b"").replace(b"\n", b"\r\n") + b"\r\n"
    stuffed = b"".join(dot_stuff([whole]))
    chunks = [stuffed[at : at + 3] for at in range(0, len(stuffed), 3)]
    assert b"".join(unstuff(chunks)) == whole
