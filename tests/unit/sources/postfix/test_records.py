"""Postfix queue files as bytes: records, pointers, segments, and damage."""

import base64
import hashlib
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.errors import MessageUnreadable
from drainer.sources.common.walk import FilePlace
from drainer.sources.postfix.message import (
    QueueFile,
    describe,
    parse_large,
    parse_whole,
)
from drainer.sources.postfix.records import RecordReader
from drainer.sources.postfix.segments import (
    EnvelopeRecords,
    PostfixRecipient,
    pending_places,
    read_envelope,
    read_extracted,
)
from tests.support.spools.postfix_files import (
    ARRIVAL,
    lines,
    queue_file,
    record,
    size_record,
)

WORKED_EXAMPLE = base64.b64decode(
    """
Q18gICAgICAgICAgICAyODAgICAgICAgICAgICAgMzQ3ICAgICAgICAgICAgICAgMyAgICAgICAgICAgICAgIDAgICAgICAgICAg
ICAgMjgwICAgICAgICAgICAgICAgMFQRMTc5NTQ1MzYxOSA0MTMxNjBBFmNyZWF0ZV90aW1lPTE3OTU0NTM2MTlBFXJld3JpdGVf
Y29udGV4dD1sb2NhbEYAcA8gICAgICAgICAgICA2NDhXDyAgICAgMTc5NTQ2ODAxOUEcZHNuX29yaWdfcmNwdD1yZmM4MjI7Z0Bl
Lm9yZ08HZ0BlLm9yZ0QHZ0BlLm9yZ0EnZHNuX29yaWdfcmNwdD1yZmM4MjI7ZEBkZWFkLmV4YW1wbGUub3JnTxJkQGRlYWQuZXhh
bXBsZS5vcmdSEmRAZGVhZC5leGFtcGxlLm9yZ3APICAgICAgICAgICAgNzE2TQBOLVJlY2VpdmVkOiBieSBiLmUub3JnIChQb3N0
Zml4LCBmcm9tIHVzZXJpZCAwKU42CWlkIDY2NDdEMjFFMkIyOyBNb24sIDIzIE5vdiAyMDI2IDE3OjA2OjU5ICswMDAwIChVVEMp
Tg1Gcm9tOiBhQGUub3JndwEwcA8gICAgICAgICAgICA2ODJOD1gtTWlsdGVyLURvOiBleE4RTWVzc2FnZS1JZDogPDFAZT5OJURh
dGU6IE1vbiwgMjMgTm92IDIwMjYgMTc6MDA6MDAgKzAwMDBOC1RvOiBnQGUub3JndwIgMHAPICAgICAgICAgICAgICAwTgBOBEJv
ZHlMBC5kb3ROAHAPICAgICAgICAgICAgICAwWABwDyAgICAgICAgICAgICAgMEUAUwluZXdAZS5vcmdwBCAgIDBwDyAgICAgICAg
ICAgIDE4Mk4MU3ViamVjdDogTkVXdwEwcA8gICAgICAgICAgICA0ODVPEm1AZGVhZC5leGFtcGxlLm9yZ1ISbUBkZWFkLmV4YW1w
bGUub3JncA8gICAgICAgICAgICAzNDU=
"""
)
"""A live file that a milter edited: part of it lies behind pointers."""


def envelope_of(*records: bytes) -> EnvelopeRecords:
    """Return what an envelope segment with these records says."""
    data = queue_file(envelope=records)
    into = EnvelopeRecords()
    read_envelope(RecordReader(data), into)
    return into


def streamed(data: bytes) -> QueueFile:
    """Parse through a window that moves over the file."""
    return parse_large(lambda offset, length: data[offset : offset + length], len(data))


def content_of(data: bytes, *, window: bool = False) -> bytes:
    """Return the content of a queue file, read in one of the two ways."""
    reader = RecordReader(data)
    if window:
        reader = RecordReader(
            read_at=lambda at, size: data[at : at + size], size=len(data)
        )
    read_envelope(reader, EnvelopeRecords())
    return b"".join(reader.content())


def pointer(target: int) -> bytes:
    """Return a pointer record as a milter edit leaves it."""
    return record("p", f"{target:15d}")


# ---- what is read


@pytest.mark.parametrize("window", [False, True], ids=["in memory", "streamed"])
def test_pointers_lead_to_the_content_after_milter_edits(*, window: bool) -> None:
    """The worked example gives the content that postcat shows, either way."""
    text = content_of(WORKED_EXAMPLE, window=window).replace(b"\r\n", b"\n")
    expected = "235fe6d2ba84fe70ee5231a4eaf6a7e72acd4384e637ac18a1419447f6424adc"
    assert hashlib.sha256(text).hexdigest() == expected
    assert len(text) == 223
    assert text.endswith(b"Body\n.dot\n")


def test_pointers_lead_to_the_envelope_after_milter_edits() -> None:
    """The new sender and the added recipient count; the done one is done."""
    records = parse_whole(WORKED_EXAMPLE).records
    assert records.sender == b"new@e.org"
    assert records.arrival == (1795453619, 413160)
    assert [each.address for each in records.pending] == [
        b"d@dead.example.org",
        b"m@dead.example.org",
    ]
    assert records.done == [b"g@e.org"]
    assert records.pending[0].orcpt == b"rfc822;d@dead.example.org"
    assert records.pending[1].orcpt == b""


def test_recipients_of_the_extracted_segment_count() -> None:
    """Both sendmail -t and BCC actions put recipients behind the content."""
    data = queue_file(envelope=(), extracted=[record("R", "late@example.org")])
    assert [each.address for each in parse_whole(data).records.pending] == [
        b"late@example.org"
    ]
    assert streamed(data).records.pending == parse_whole(data).records.pending


def test_a_filter_after_the_envelope_is_not_text() -> None:
    """The type L is text within the content only."""
    data = queue_file(extracted=[record("L", "smtp:[127.0.0.1]:10025")])
    assert parse_whole(data).records.filter == b"smtp:[127.0.0.1]:10025"


@pytest.mark.parametrize("window", [False, True], ids=["in memory", "streamed"])
@pytest.mark.parametrize("length", [2047, 2048, 2049, 4096, 300_000])
def test_long_lines_are_put_together_again(*, window: bool, length: int) -> None:
    """Pieces of a line join without anything between them."""
    text = b"Subject: long\n\n" + b"x" * length + b"\nend\n"
    data = queue_file(text=text)
    assert content_of(data, window=window) == text.replace(b"\n", b"\r\n")


@pytest.mark.parametrize("window", [False, True], ids=["in memory", "streamed"])
def test_a_record_longer_than_the_window_is_streamed(*, window: bool) -> None:
    """Text records may have any length that the framing can say."""
    text = b"A: b\n\n" + b"y" * 1_000_000
    front = size_record(1) + record("T", ARRIVAL) + record("S") + record("M")
    records = record("N", "A: b") + record("N") + record("N", b"y" * 1_000_000)
    data = front + records + record("X") + record("E")
    assert content_of(data, window=window) == text.replace(b"\n", b"\r\n") + b"\r\n"


def test_a_last_line_without_its_end_gets_one() -> None:
    """Postfix adds CRLF when the last text record is an L (smtp_proto.c)."""
    assert content_of(queue_file(text=b"\nno end")) == b"\r\nno end\r\n"


def test_a_missing_body_is_no_fault() -> None:
    """Empty DATA leaves a header section and the content's end right behind it."""
    assert content_of(queue_file(text=b"Received: x\n")) == b"Received: x\r\n"
    assert content_of(queue_file(text=b"")) == b""


def test_octets_of_the_content_are_not_touched() -> None:
    """NUL, bare CR and 8-bit bytes pass as they are."""
    text = b"A: \xff\n\n\0\r.\xc3\xa9\n"
    assert content_of(queue_file(text=text)) == b"A: \xff\r\n\r\n\0\r.\xc3\xa9\r\n"


# ---- attributes belong to the next recipient alone


@pytest.mark.parametrize("kind", ["D", "/", "R"], ids=["done", "cancelled", "pending"])
def test_attributes_do_not_bleed_onto_the_following_recipient(kind: str) -> None:
    """A done or cancelled recipient uses up its attributes like a pending one."""
    records = envelope_of(
        record("A", "dsn_orig_rcpt=rfc822;one@example.org"),
        record("A", "notify_flags=1"),
        record("O", "one@example.org"),
        record(kind, "one@example.org"),
        record("R", "two@example.org"),
    )
    assert records.pending[-1] == PostfixRecipient(b"two@example.org", b"", b"", 0)


def test_done_and_cancelled_recipients_are_not_pending() -> None:
    """D was delivered or bounced, / was deleted by a milter."""
    records = envelope_of(
        record("D", "d@x.org"), record("/", "c@x.org"), record("R", "r@x.org")
    )
    assert (records.done, records.cancelled) == ([b"d@x.org"], 1)
    assert [each.address for each in records.pending] == [b"r@x.org"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("sasl_username", b"first"), ("create_time", b"first"), ("encoding", b"second")],
)
def test_duplicates_count_as_in_qmgr(name: str, expected: bytes) -> None:
    """Some attributes count by their first, others by their last record."""
    both = [record("A", f"{name}=first"), record("A", f"{name} = second ")]
    assert envelope_of(*both).attributes[name.encode()] == expected


def test_a_killed_record_means_nothing() -> None:
    """K is what Postfix writes over a record that it took back."""
    assert envelope_of(record("K", "trace_flags=256")).attributes == {}


def test_an_empty_value_is_a_placeholder() -> None:
    """Zero-length values are room for later, not values."""
    assert envelope_of(record("A", "envelope_id=")).attributes == {}


# ---- damage


def loop(target: int) -> bytes:
    """Return a file whose content points back to an earlier record."""
    front = size_record(1) + record("T", ARRIVAL) + record("S") + record("M")
    return front + record("N", "text") + pointer(target) + record("X") + record("E")


@pytest.mark.parametrize("window", [False, True], ids=["in memory", "streamed"])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(loop(97), id="a pointer back to the time record"),
        pytest.param(loop(len(loop(1)) - 4 - 17), id="a pointer to itself"),
        pytest.param(loop(len(loop(1)) - 4 - 17 - 6), id="text again and again"),
        pytest.param(loop(10**9), id="a pointer beyond the end"),
        pytest.param(loop(10**14), id="a pointer far beyond the end"),
        pytest.param(b"", id="nothing at all"),
        pytest.param(b"C", id="half a frame"),
        pytest.param(b"C\xff\xff\xff\xff\xff", id="a length without end"),
        pytest.param(b"C\xff\xff\xff\x7f", id="a length of 256 MB"),
        pytest.param(b"Q\0" + queue_file(), id="an unknown type"),
        pytest.param(queue_file()[:-2], id="no end marker"),
        pytest.param(queue_file()[:-12], id="cut within the content"),
        pytest.param(queue_file()[:120], id="cut within the envelope"),
        pytest.param(queue_file()[97:], id="no size record"),
        pytest.param(queue_file().replace(record("T", ARRIVAL), b""), id="no time"),
        pytest.param(
            queue_file().replace(record("S", "s@example.com"), b""), id="no sender"
        ),
        pytest.param(queue_file(extracted=[record("M")]), id="a misplaced marker"),
        pytest.param(
            queue_file(envelope=[record("p", "xyz")]), id="a pointer to nowhere"
        ),
        pytest.param(
            queue_file(envelope=[record("T", "99999999999999")]).replace(
                record("T", ARRIVAL), b""
            ),
            id="a time beyond time",
        ),
    ],
)
def test_a_damaged_file_is_corrupt(*, window: bool, data: bytes) -> None:
    """Whatever is wrong with the records, it is found, and it is found soon."""
    parsed = streamed(data) if window else parse_whole(data)
    assert parsed.error is not None
    assert parsed.error.code == "corrupt"


def test_a_file_in_the_making_is_incomplete() -> None:
    """Cleanup fills the size record in last."""
    zeros = record("C", " ".join(f"{0:15d}" for _ in range(6)))
    data = zeros + queue_file()[len(zeros) :]
    for cut in (data, data[:-2], data[:150]):
        error = parse_whole(cut).error
        assert error is not None
        assert error.code == "incomplete"


def test_backward_jumps_are_limited() -> None:
    """A chain of pointers that always leads back is cut off, as Postfix does."""
    front = size_record(1) + record("T", ARRIVAL) + record("S") + record("M")
    count, start = 20_000, len(front) + 17
    chain = b"".join(pointer(start + (i - 1) * 17) for i in range(1, count))
    data = front + pointer(start + (count - 2) * 17) + record("X") + chain
    assert parse_whole(data).error is not None


def check_any(data: bytes) -> None:
    """Parse in both ways and build a message; nothing but a problem may come of it."""
    place = FilePlace(("deferred",), "ABC")
    for parsed in (parse_whole(data), streamed(data)):
        entry = describe(parsed, place)
        for text in (entry.envelope, entry.client, entry.flags, entry.problem):
            str(text).encode()  # everything is printable UTF-8
        assert entry.problem is not None or entry.envelope.recipients


@given(st.binary(max_size=2000))
def test_arbitrary_octets_never_crash_the_parser(data: bytes) -> None:
    """Any bytes give a message with a problem, soon."""
    check_any(data)


KINDS = "MCTcFILSDRO/WVA>K<ionNLwpXErePQ"


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(KINDS), st.binary(max_size=40)),
            st.tuples(st.just("p"), st.integers(0, 600).map(lambda n: b"%15d" % n)),
            st.tuples(
                st.just("A"),
                st.sampled_from(
                    [
                        b"notify_flags=9999999999",
                        b"trace_flags=256",
                        b"envelope_id=\xff",
                    ]
                ),
            ),
        ),
        max_size=30,
    )
)
def test_arbitrary_records_never_crash_the_parser(
    records: Iterable[tuple[str, bytes]],
) -> None:
    """Well-framed nonsense, pointer mazes included, ends soon and in a message."""
    body = b"".join(record(kind, payload) for kind, payload in records)
    check_any(size_record(40) + record("T", ARRIVAL) + record("S") + body)


@given(st.data())
def test_both_ways_of_reading_agree_on_damaged_files(data: st.DataObject) -> None:
    """One octet changed: memory and window see the same message."""
    octets = bytearray(WORKED_EXAMPLE)
    where = data.draw(st.integers(0, len(octets) - 1))
    octets[where] = data.draw(st.integers(0, 255))
    whole, window = parse_whole(bytes(octets)), streamed(bytes(octets))
    assert (whole.error is None) == (window.error is None)
    assert whole.records == window.records


@given(st.binary(max_size=400), st.integers(1, 8))
def test_content_survives_any_division_into_records(text: bytes, every: int) -> None:
    """However lines are cut into L records, they join to the same content."""
    text = text.replace(b"\r", b"")
    data = queue_file(text=b"\n" + text)
    pieces = b""
    for line in text.splitlines(keepends=True) if b"\n" in text else [text]:
        bare = line.rstrip(b"\n")
        for start in range(0, len(bare), every):
            pieces += record("L", bare[start : start + every])
        pieces += record("N") if line.endswith(b"\n") else b""
    divided = data.replace(lines(b"\n" + text), record("N") + pieces)
    assert content_of(divided) == content_of(data)


RUNS = st.tuples(
    st.sampled_from("NNNL"),
    st.one_of(st.integers(0, 3), st.integers(76, 78), st.integers(126, 129)),
    st.integers(1, 40),
    st.sampled_from(b"NLx\0\x01\x02L."),
)
"""Type, length and number of records that are alike, and the byte they consist of."""


@given(st.lists(RUNS, max_size=8))
def test_lines_of_one_length_are_like_all_others(
    runs: list[tuple[str, int, int, int]],
) -> None:
    """Bytes of their text that look like the head of a record are text."""
    records, text = b"", b""
    for kind, length, count, byte in runs:
        line = bytes((byte,)) * length
        records += record(kind, line) * count
        text += (line + (b"\r\n" if kind == "N" else b"")) * count
    if runs and runs[-1][0] == "L":
        text += b"\r\n"
    plain = queue_file(text=b"")
    front = plain.removesuffix(record("X") + record("E"))
    data = front + records + record("X") + record("E")
    assert content_of(data) == content_of(data, window=True) == text


# ---- the window


def test_a_lying_size_record_does_not_mislead() -> None:
    """Where no content end stands at the promised offset, the content is walked."""
    text = b"A: b\n\n" + b"z\n" * 100_000
    good = queue_file(text=text, extracted=[record("R", "late@example.org")])
    for wrong in (size_record(5), size_record(10**9), size_record(0, 200)):
        parsed = streamed(wrong + good[97:])
        assert parsed.error is None
        assert parsed.records.pending == streamed(good).records.pending


def test_a_message_unreadable_names_the_offset() -> None:
    """An operator sees where the file is torn."""
    with pytest.raises(MessageUnreadable, match=r"at 1[0-9]+"):
        content_of(queue_file()[:-12])


@pytest.mark.parametrize("window", [False, True], ids=["whole", "through a window"])
@pytest.mark.parametrize("length", [1, 20, 127, 128, 300])
def test_a_pending_recipient_is_found_at_its_type(*, window: bool, length: int) -> None:
    """In both segments, whatever the length of its address takes to write."""
    address = "a" * length
    records = [record("R", address), record("D", "done@example.org")]
    text = b"Subject: long\n\n" + b"a line of text\n" * (40_000 if window else 1)
    data = queue_file(envelope=records, extracted=[record("R", "last")], text=text)
    whole = data
    reader = RecordReader(read_at=lambda at, n: whole[at : at + n], size=len(whole))
    places = list(pending_places(reader if window else RecordReader(whole)))
    assert [found for _, found in places] == [address.encode(), b"last"]
    for offset, found in places:
        assert data[offset : offset + 1] == b"R"
        data = data[:offset] + b"D" + data[offset + 1 :]
        assert found in data[offset : offset + len(found) + 4]
    into, reader = EnvelopeRecords(), RecordReader(data)
    read_envelope(reader, into)
    list(reader.content())
    read_extracted(reader, into)
    assert into.pending == []
    assert into.done == [address.encode(), b"done@example.org", b"last"]
