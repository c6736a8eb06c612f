"""Any bytes in a dump of postcat: a message, or a problem with a name."""

from hypothesis import given
from hypothesis import strategies as st

from drainer.errors import MessageUnreadable
from drainer.mail.message import PROBLEMS
from drainer.sources.postcat.dump import Dump, DumpFile, read_dump
from drainer.sources.postcat.list import parse_line
from tests.support.spools.store_kits import dump, list_line, text

ID = "2878E21E2F1"
PATH = f"deferred/2/{ID}"
PIECES = [
    f"*** ENVELOPE RECORDS {PATH} ***\n",
    f"*** MESSAGE CONTENTS {PATH} ***\n",
    f"*** HEADER EXTRACTED {PATH} ***\n",
    f"*** MESSAGE FILE END {PATH} ***\n",
    f"*** MESSAGE FILE END {PATH} ***",
    "recipient: victim@example.org\n",
    "sender: s@example.com\n",
    "Received: by mx2\n",
    "\n",
    "x",
]
CONTENTS = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)


def file_of(data: bytes) -> DumpFile:
    """Return a file in memory."""
    return DumpFile(lambda at, length: data[at : at + length], len(data))


def read(data: bytes, content: bytes | None = None) -> Dump | str:
    """Return what a dump says, or its problem."""
    try:
        return read_dump(file_of(data), None if content is None else file_of(content))
    except MessageUnreadable as error:
        return PROBLEMS[error.code][0]


@given(CONTENTS)
def test_no_content_adds_a_recipient(hostile: str) -> None:
    """Whatever it imitates, with its own dump beside it or without."""
    content = text("x", "body") + hostile
    whole = dump(ID, content, PATH).encode()
    for found in (read(whole), read(whole, content.encode())):
        if isinstance(found, str):
            continue
        assert [each.address for each in found.records.pending] == [b"r@example.org"]
        octets = b"".join(found.content.chunks(found.start, found.end))
        assert octets == content.encode()


@given(CONTENTS)
def test_two_dumps_say_at_least_what_one_says(hostile: str) -> None:
    """A content that ends its last line is never in doubt with both."""
    content = text("x", "body") + hostile + "\n"
    both = read(dump(ID, content, PATH).encode(), content.encode())
    assert isinstance(both, Dump)
    assert both.is_proven


@given(st.binary(max_size=400) | CONTENTS.map(str.encode), st.binary(max_size=50))
def test_any_octets_are_read_or_named(data: bytes, content: bytes) -> None:
    """No other exception comes out."""
    read(data)
    read(data, content)
    read(dump(ID, "", PATH).encode() + data)
    read(data + dump(ID, "", PATH).encode(), content)


@given(st.integers(0, 300), st.binary(max_size=8))
def test_any_line_of_a_list_is_read_or_named(at: int, octets: bytes) -> None:
    """No other exception comes out."""
    line = list_line(ID).encode()
    problem = "corrupt: "
    try:
        found = parse_line(line[:at] + octets + line[at + len(octets) :])
        assert found.queue_id.isprintable()
    except MessageUnreadable as error:
        problem = str(error)
    assert problem.startswith("corrupt: ")
    assert problem.isprintable()
