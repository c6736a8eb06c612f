"""An envelope in JSON beside an .eml file."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.errors import MessageUnreadable
from drainer.mail.envelope import Client, Envelope, Recipient
from drainer.sources.eml.sidecar import Sidecar, parse_sidecar

LEAST: dict[str, Any] = {"reverse_path": "s@example.com", "recipients": ["r@a.org"]}


def parse(**fields: object) -> Sidecar:
    """Read a sidecar with these fields besides the two that must be there."""
    return parse_sidecar(json.dumps(LEAST | fields).encode())


def code(data: bytes) -> str:
    """Return the problem of a sidecar; '' for none."""
    try:
        parse_sidecar(data)
    except MessageUnreadable as error:
        return error.code if error.detail.isprintable() else "unprintable"
    return ""


def test_sender_and_recipients_suffice() -> None:
    """Everything else has a value that means unknown."""
    assert parse() == Sidecar(
        envelope=Envelope(
            reverse_path="s@example.com",
            recipients=(Recipient(forward_path="r@a.org"),),
        )
    )
    assert parse(login=None, client=None, done=None, ret=None) == parse()
    for null_sender in ("", "<>"):
        assert parse(reverse_path=null_sender).envelope.reverse_path == ""


def test_every_field_is_read() -> None:
    """DSN parameters are decoded text; order and doubles do not matter."""
    full = parse(
        recipients=[
            {
                "forward_path": "<Q@b.org>",
                "orcpt": "rfc822;a b@b.org",
                "notify": ["DELAY", "FAILURE"],
            },
            "r@a.org",
            "Q@b.org",
        ],
        done=["p@a.org"],
        arrived="2026-11-23T18:06:59+01:00",
        envid="x=1",
        ret="HDRS",
        body="8bit",
        smtputf8=True,
        verp="+=",
        login="user",
        client={"address": "192.0.2.7", "name": "c.example", "helo": "c"},
        problem=None,
    )
    assert full.envelope == Envelope(
        reverse_path="s@example.com",
        recipients=(
            Recipient(
                forward_path="Q@b.org",
                orcpt="rfc822;a b@b.org",
                notify=("FAILURE", "DELAY"),
            ),
            Recipient(forward_path="r@a.org"),
        ),
        done=("p@a.org",),
        envid="x=1",
        ret="HDRS",
        body="8bit",
        smtputf8=True,
        verp="+=",
    )
    assert full.client == Client(address="192.0.2.7", name="c.example", helo="c")
    assert full.login == "user"
    assert full.arrived is not None
    assert full.arrived.isoformat() == "2026-11-23T17:06:59+00:00"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"recipients": []}, "no-envelope"),
        ({"recipients": None}, "no-envelope"),
        ({"reverse_path": None}, "no-envelope"),
        ({"recipients": "r@a.org"}, "corrupt"),
        ({"recipients": [3]}, "corrupt"),
        ({"recipients": [{}]}, "corrupt"),
        ({"reverse_path": "s\x1b[31m@a.org"}, "bad-address"),
        ({"recipients": [{"forward_path": "r@a.org", "notify": ["X"]}]}, "corrupt"),
        (
            {"recipients": [{"forward_path": "r@a.org", "notify": ["NEVER", "DELAY"]}]},
            "corrupt",
        ),
        ({"recipients": [{"forward_path": "r@a.org", "notify": [[]]}]}, "corrupt"),
        ({"recipients": [{"forward_path": "r@a.org", "orcpt": "x"}]}, "corrupt"),
        ({"recipients": [{"forward_path": "r@a.org", "orcpt": "x;\n"}]}, "corrupt"),
        ({"envid": "x" * 501}, "corrupt"),
        ({"ret": "ALL"}, "corrupt"),
        ({"verp": "+"}, "corrupt"),
        ({"verp": "+\n"}, "corrupt"),
        ({"body": 8}, "corrupt"),
        ({"smtputf8": "yes"}, "corrupt"),
        ({"client": ["x"]}, "corrupt"),
        ({"client": {"helo": 3}}, "corrupt"),
        ({"arrived": "\x1byesterday"}, "corrupt"),
        ({"arrived": "0001-01-01T00:00:00+23:00"}, "corrupt"),
        ({"login": {}}, "corrupt"),
    ],
)
def test_what_is_wrong_has_a_name(fields: dict[str, object], expected: str) -> None:
    """A typing error must not become a delivery to fewer people."""
    assert code(json.dumps(LEAST | fields).encode()) == expected


def test_a_bad_recipient_holds_itself() -> None:
    """Its fault is named, also after a list of done ones with another."""
    bad = ["r", "r@a.org\r\nDATA", "\ud800@a.org"]
    fields = LEAST | {"recipients": [*bad, "r@a.org"], "done": bad}
    envelope = parse_sidecar(json.dumps(fields).encode()).envelope
    assert [bool(r.fault) for r in envelope.recipients] == [True, True, True, False]
    assert all(path.isprintable() for path in envelope.done)


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"[]", b"\xff", b"[" * 100_000, b'{"a": ' * 50_000, b"1" * 5000],
)
def test_what_is_no_json_object_is_corrupt(data: bytes) -> None:
    """However deep, however long."""
    assert code(data) == "corrupt"


@given(
    st.binary()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries(
        {
            name: st.none() | st.text() | st.lists(st.text() | st.dictionaries(
                st.sampled_from(["forward_path", "orcpt", "notify"]), st.text()))
            for name in ("reverse_path", "recipients", "client", "done", "ret")
        }
    ).map(lambda value: json.dumps(value).encode())
)  # fmt: skip
def test_any_octets_raise_nothing_else(data: bytes) -> None:
    """A sidecar may be anybody's."""
    assert code(data) in ("", "corrupt", "no-envelope", "bad-address")
