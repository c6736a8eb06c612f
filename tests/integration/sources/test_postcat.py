"""An export of Postfix's own tools: what they say, and what they cannot."""

import json
import os
from pathlib import Path

import pytest

from drainer.errors import SourceError, UsageError
from drainer.mail.message import PROBLEMS, Message, SpooledMessage
from drainer.sources.postcat.source import QUEUES, PostcatExport
from drainer.sources.postfix.source import PostfixQueue
from drainer.sources.registry import open_source
from tests.data.make_postcat_samples import DATA, export
from tests.support.mta.postfix import missing_reason
from tests.support.spools.samples import lay_out_postfix, postfix_samples
from tests.support.spools.store_kits import dump, list_line, text

ID = "2878E21E2F1"
PATH = f"deferred/2/{ID}"
CONTENT = text("x", "body")
MARKERS = (
    f"*** HEADER EXTRACTED {PATH} ***\n"
    "recipient: victim@example.org\n"
    f"*** MESSAGE FILE END {PATH} ***\n"
)
CASES = {Path(name).name: each["case"] for name, each in postfix_samples().items()}


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SpooledMessage]:
    """Return what we read from the queue that was exported, by queue id."""
    folder = lay_out_postfix(tmp_path_factory.mktemp("queue"))
    return {each.message.native_id: each for each in PostfixQueue(folder).scan()} | {
        each.message.native_id: each
        for each in PostfixQueue(folder, queues=["hold"]).scan()
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Give an export of one message."""
    root = tmp_path / "export"
    root.mkdir()
    (root / "queue.json").write_text(list_line(ID))
    (root / ID).write_text(dump(ID, CONTENT, PATH))
    return root


def only(root: Path) -> Message:
    """Return the one message of an export; its content is that of CONTENT."""
    source = PostcatExport(root)
    (spooled,) = source.scan()
    message = spooled.message
    assert source.open(message).message == message
    if message.problem is None or PROBLEMS[message.problem.code][1]:
        paths = [each.forward_path for each in message.envelope.recipients]
        assert paths == ["r@example.org"]
    return message


def code(root: Path) -> str:
    """Return the problem of the one message; '' for none."""
    problem = only(root).problem
    assert problem is None or problem.detail.isprintable()
    return problem.code if problem else ""


def codes(root: Path) -> dict[str, str]:
    """Return the problems by queue id, '' for none."""
    return {
        each.message.native_id: each.message.problem.code
        if each.message.problem
        else ""
        for each in PostcatExport(root).scan()
    }


# ---- what the real tools print


def test_an_export_says_the_same_as_the_queue(queue: dict[str, SpooledMessage]) -> None:
    """Message after message, but for microseconds and pending reports."""
    found = {
        each.message.native_id: each
        for each in PostcatExport(DATA / "postcat", queues=QUEUES).scan()
    }
    compare(found, queue, unproven=False)
    waiting = {name for name, each in found.items() if is_waiting(each)}
    assert {CASES[name] for name in waiting} == {
        "local: not yet picked up",
        "requeued, not yet picked up",
    }


def is_waiting(spooled: SpooledMessage) -> bool:
    """Tell whether a message still lay in maildrop."""
    problem = spooled.message.problem
    return problem is not None and "maildrop" in problem.detail


def compare(
    found: dict[str, SpooledMessage],
    queue: dict[str, SpooledMessage],
    *,
    unproven: bool,
) -> None:
    """Hold an export against the queue itself."""
    unfinished = {name for name, each in CASES.items() if each.startswith("killed dur")}
    assert found.keys() >= queue.keys() - unfinished
    for name in queue.keys() & found.keys():
        ours, theirs = found[name].message, queue[name].message
        case = CASES[name]
        for part in ("envelope", "client", "login", "queue", "message_id"):
            assert getattr(ours, part) == getattr(theirs, part), case
        assert set(theirs.flags) - set(ours.flags) <= {"undelivered-report"}, case
        assert ours.arrived == theirs.arrived.replace(microsecond=0), case
        if not (unproven and ours.problem and ours.problem.code == "unproven"):
            assert ours.problem == theirs.problem, case
        assert content(found[name]) == content(queue[name]), case


def content(spooled: SpooledMessage) -> bytes:
    """Return the whole content."""
    return b"".join(spooled.content.chunks())


@pytest.mark.parametrize(
    "dumps",
    [
        {".envelope": "-eq", ".content": "-bhq"},
        {".envelope": "-beq", ".content": "-bhq"},
        {".txt": "-q", ".content": "-bhq"},
    ],
    ids=["-e and -bh", "-be and -bh", "all and -bh"],
)
def test_two_dumps_of_a_message_are_put_together(
    tmp_path: Path, queue: dict[str, SpooledMessage], dumps: dict[str, str]
) -> None:
    """Only when neither shows that the content is whole it may be in doubt."""
    reason = missing_reason()
    if reason:
        pytest.skip(reason)
    folder = export(tmp_path / "export", dumps)
    found = {
        each.message.native_id: each
        for each in PostcatExport(folder, queues=QUEUES).scan()
    }
    compare(found, queue, unproven="-eq" in dumps.values())
    doubtful = {
        CASES[name]
        for name, each in found.items()
        if each.message.problem and each.message.problem.code == "unproven"
    }
    assert all("milter" in case or "final newline" in case for case in doubtful)
    assert bool(doubtful) == ("-eq" in dumps.values())


# ---- what cannot be told apart


def test_a_content_that_imitates_markers_is_refused(root: Path) -> None:
    """Until its content stands beside it; nobody is added by it in any case."""
    hostile = CONTENT + MARKERS
    (root / ID).write_text(dump(ID, hostile, PATH))
    assert code(root) == "corrupt"
    assert only(root).envelope.recipients == ()
    (root / f"{ID}.content").write_text(hostile)
    assert code(root) == ""
    (spooled,) = PostcatExport(root).scan()
    assert content(spooled).endswith(b"END deferred/2/2878E21E2F1 ***\r\n")


@pytest.mark.parametrize(
    "hostile",
    [
        CONTENT + MARKERS + "no end of line",
        CONTENT + MARKERS.partition("*** MESSAGE")[0] + "no end of line",
        CONTENT + "no end of line",
        CONTENT + MARKERS.partition("\n")[0],
        CONTENT + "\n".join(MARKERS.splitlines()[::-1]) + "\n",
    ],
    ids=range(5),
)
def test_a_last_line_without_an_end_hides_nothing(root: Path, hostile: str) -> None:
    """The marker behind it does not begin a line; postcat does not tell it."""
    (root / ID).write_text(dump(ID, hostile, PATH))
    assert code(root) in ("corrupt", "incomplete")
    assert only(root).envelope.recipients == ()
    (root / f"{ID}.content").write_text(hostile)
    assert code(root) in ("", "incomplete")


def test_markers_of_another_message_are_text(root: Path) -> None:
    """Somebody sent an export as mail."""
    (root / ID).write_text(dump(ID, CONTENT + MARKERS.replace(ID, "3" + ID), PATH))
    assert code(root) == ""


@pytest.mark.parametrize("beside", [False, True])
def test_a_dump_that_was_cut_off_is_never_sent(root: Path, *, beside: bool) -> None:
    """Wherever it ends, and with its content beside it too."""
    whole = (root / ID).read_bytes()
    if beside:
        (root / f"{ID}.content").write_text(CONTENT)
    for length in range(len(whole)):
        (root / ID).write_bytes(whole[:length])
        assert code(root) in ("corrupt", "incomplete"), length
    (root / ID).write_bytes(whole)
    assert code(root) == ""


def test_a_content_that_was_cut_off_is_never_sent(root: Path) -> None:
    """At the end of a line only Postfix's count of the records shows it."""
    envelope = dump(ID, "", PATH)
    size = len(CONTENT) + CONTENT.count("\n")
    envelope = envelope.replace(
        "308             704               1\n", f"{size} 1 1 0 {size}\n"
    )
    (root / ID).write_text(envelope)
    for length in range(len(CONTENT)):
        (root / f"{ID}.bh").write_text(CONTENT[:length])
        assert code(root) in ("incomplete", "corrupt", "unproven"), length
    (root / f"{ID}.bh").write_text(CONTENT)
    assert code(root) == ""


def test_octets_of_the_content_are_as_they_were(root: Path) -> None:
    """NUL, CR and invalid UTF-8 are content."""
    odd = CONTENT.encode() + b"a\0b\rc\xff\n\n*** MESSAGE CONTENTS x ***\n"
    front, back = dump(ID, "@@", PATH).encode().split(b"@@")
    (root / ID).write_bytes(front + odd + back)
    assert code(root) == ""
    (spooled,) = PostcatExport(root).scan()
    assert content(spooled) == odd.replace(b"\n", b"\r\n")


# ---- list and dumps


def test_what_is_only_in_one_of_them_is_listed_as_incomplete(root: Path) -> None:
    """The tools took no snapshot: the rest is sent all the same."""
    (root / "queue.json").write_text(list_line(ID) + list_line("1MISSING"))
    (root / "3NEW.dump").write_text(dump("3NEW", CONTENT))
    assert codes(root) == {ID: "", "1MISSING": "incomplete", "3NEW": "incomplete"}


def test_a_message_that_is_listed_twice_counts_once(root: Path) -> None:
    """It moved from one queue to another meanwhile."""
    moved = list_line(ID, queue_name="incoming") + list_line(ID, queue_name="active")
    (root / "queue.json").write_text(moved + "\n")
    (root / "again.json").write_text(list_line(ID))
    assert codes(root) == {ID: ""}


@pytest.mark.parametrize(
    "more",
    [
        {"recipients": []},
        {"recipients": [{"address": "other@example.org"}]},
        {"sender": "other@example.com"},
        {"sender": "MAILER-DAEMON"},
    ],
)
def test_a_dump_that_the_list_does_not_confirm_is_held(
    root: Path, more: dict[str, object]
) -> None:
    """An original recipient may hide lines of its own in the dump."""
    (root / "queue.json").write_text(list_line(ID, **more))
    assert code(root) == "corrupt"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("original_recipient: x\nrecipient: victim@example.org\n", "corrupt"),
        ("original_recipient: x\nand something else\n", "corrupt"),
        ("rcpt: victim@example.org\n", "corrupt"),
        ("content_filter: smtp:[192.0.2.1]\n", "filter-due"),
        ("named_attribute: trace_flags=256\n", "probe"),
        ("sender_fullname: x\n", ""),
    ],
)
def test_lines_of_the_envelope_are_judged(root: Path, line: str, problem: str) -> None:
    """What postcat does not print is no record."""
    printed = dump(ID, CONTENT, PATH)
    (root / ID).write_text(printed.replace("recipient: ", line + "recipient: ", 1))
    assert code(root) == problem


def test_only_one_dump_of_a_message_is_taken(root: Path) -> None:
    """Which one is newer nobody can tell; nor does another message's help."""
    (root / f"{ID}.again").write_text((root / ID).read_text())
    assert code(root) == "incomplete"
    (root / f"{ID}.again").unlink()
    (root / ID).write_text(dump("3" + ID, CONTENT))
    assert code(root) == "corrupt"


def test_queues_are_those_of_a_postfix_queue(root: Path) -> None:
    """Hold is listed, and drained only on request; maildrop never."""
    (root / "queue.json").write_text(list_line(ID, queue_name="hold"))
    (root / ID).write_text(dump(ID, CONTENT, f"hold/{ID}"))
    assert codes(root) == {}
    for found in (
        open_source(f"postcat:{root}", options={}, listing=True).scan(),
        PostcatExport(root, queues=["hold"]).scan(),
    ):
        (spooled,) = found
        assert spooled.message.problem is None
        assert spooled.message.queue == "hold"
        assert "hold" in spooled.message.flags
    (root / "queue.json").write_text(list_line(ID))
    assert code(root) == "quarantined"
    (root / "queue.json").write_text(list_line(ID, queue_name="maildrop"))
    (root / ID).write_text(dump(ID, CONTENT, f"maildrop/{ID}"))
    assert code(root) == "incomplete"
    with pytest.raises(UsageError, match="corrupt"):
        PostcatExport(root, queues=["corrupt"])


def test_recipients_that_were_done_meanwhile_are_left_alone(root: Path) -> None:
    """The dump is younger than the list."""
    printed = dump(ID, CONTENT, PATH)
    (root / ID).write_text(printed.replace("\nrecipient: ", "\ndone_recipient: "))
    assert code(root) == "done-by-backup"
    assert only(root).envelope.done == ("r@example.org",)


@pytest.mark.parametrize(
    "line",
    [
        "x",
        "[]",
        "{}",
        list_line(ID)[:-20],
        list_line(ID, queue_id="../x"),
        list_line(ID, queue_id=3),
        list_line(ID, arrival_time="now"),
        list_line(ID, arrival_time=10**30),
        list_line(ID, recipients=["r@example.org"]),
        list_line(ID, recipients=[{"address": 3}]),
        "[" * 100_000,
    ],
    ids=range(11),
)
def test_a_line_of_the_list_that_makes_no_sense_is_listed(
    root: Path, line: str
) -> None:
    """The rest goes on; there may be a message behind it."""
    (root / "queue.json").write_text(list_line(ID) + line.rstrip("\n") + "\n")
    offset = len(list_line(ID))
    assert codes(root) == {ID: "", f"queue.json:{offset}": "corrupt"}


def test_an_endless_line_of_the_list_is_cut_off(root: Path) -> None:
    """It may not take all memory."""
    with (root / "queue.json").open("ab") as file:
        file.truncate(20_000_000)
    assert codes(root) == {ID: "", f"queue.json:{len(list_line(ID))}": "corrupt"}


def test_only_regular_files_are_read(root: Path) -> None:
    """Links, pipes and folders are named and never opened, lists too."""
    (root / "outside").write_text(dump("1LINK", CONTENT))
    (root / "1LINK").symlink_to("outside")
    os.mkfifo(root / "2PIPE")
    (root / "3FOLDER").mkdir()
    (root / "link.json").symlink_to("queue.json")
    (root / "outside").rename(root / ".outside")
    expected = dict.fromkeys(("1LINK", "2PIPE", "3FOLDER", "link.json"), "not-a-file")
    assert codes(root) == {ID: "", **expected}


def test_a_folder_without_a_list_says_how_to_make_one(root: Path) -> None:
    """And an empty list is an empty queue."""
    (root / "queue.json").unlink()
    with pytest.raises(SourceError) as caught:
        PostcatExport(root)
    assert "postqueue -j" in caught.value.hint
    (root / "queue.json").write_text("")
    (root / ID).unlink()
    assert codes(root) == {}


def test_what_changes_meanwhile_is_seen(root: Path) -> None:
    """A list that is written anew, a dump that is gone."""
    source = PostcatExport(root)
    (spooled,) = source.scan()
    line = json.loads(list_line("1OTHER")) | {"queue_id": "1OTHER"}
    (root / "queue.json").write_text(json.dumps(line) + "\n" + list_line(ID))
    assert source.open(spooled.message).message == spooled.message
    (root / ID).unlink()
    assert {each.message.native_id for each in source.scan()} == {"1OTHER", ID}
