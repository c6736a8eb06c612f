"""The Exim source on real files: samples, damage, locks, removal, running servers."""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drainer.errors import MessageUnreadable, SourceError, UsageError
from drainer.mail.content import survey
from drainer.mail.envelope import xtext
from drainer.mail.message import Message, SpooledMessage
from drainer.sources.exim.locks import exim_runs
from drainer.sources.exim.source import EximSpool
from drainer.sources.registry import open_source
from tests.support.command.installed import Drainer
from tests.support.paths import DATA
from tests.support.spools.exim_files import ID, VARIABLES, data_file, header_file, place
from tests.support.spools.samples import EximSample, exim_samples, lay_out_exim

SAMPLES = exim_samples()
NAME = ID.decode()


def code(spooled: SpooledMessage) -> str:
    """Return the problem's code, or ''."""
    problem = spooled.message.problem
    return problem.code if problem else ""


def content_of(spooled: SpooledMessage) -> bytes:
    """Return the whole content."""
    return b"".join(spooled.content.chunks())


def only(root: Path, *, drops: bool = False) -> SpooledMessage:
    """Return the one message of a spool."""
    (spooled,) = EximSpool(root, acknowledge="remove" if drops else "keep").scan()
    return spooled


# ---- what Exim itself sends


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SpooledMessage]:
    """Return what is listed of the sample spool, by locator."""
    root = lay_out_exim(tmp_path_factory.mktemp("exim"))
    source = EximSpool(root, queues=("input", "slow"))
    return {each.message.locator: each for each in source.scan()}


def test_every_sample_is_listed(found: dict[str, SpooledMessage]) -> None:
    """With the one that is half received, and nothing else."""
    (half,) = set(found) - set(SAMPLES)
    assert code(found[half]) == "incomplete"
    assert set(SAMPLES) <= set(found)
    problems = {SAMPLES[name]["case"]: code(found[name]) for name in SAMPLES}
    assert {case: each for case, each in problems.items() if each} == {
        "never deliver": "never-deliver",
        "list and other": "many-senders",
    }


@pytest.mark.parametrize(
    "name", [name for name in SAMPLES if len(SAMPLES[name]["sent"]) == 1]
)
def test_what_is_read_is_what_exim_sends(
    found: dict[str, SpooledMessage], name: str
) -> None:
    """Reverse path, recipients, their parameters, and every octet of the content."""
    (sent,) = SAMPLES[name]["sent"]
    message, envelope = found[name].message, found[name].message.envelope
    facts = survey(found[name].content.chunks(), digest=True)
    assert (facts.sha256, facts.size_bytes) == (sent["sha256"], sent["size"])
    assert message.size_bytes == sent["size"]
    assert envelope.reverse_path == sent["reverse_path"]
    assert mail_parameters(message) == {
        key: value for key, value in sent["parameters"].items() if key != "SIZE"
    }
    assert rcpt_parameters(message) == sent["recipients"]


def mail_parameters(message: Message) -> dict[str, str]:
    """Return what MAIL would carry."""
    envelope = message.envelope
    parameters = {"ENVID": xtext(envelope.envid), "RET": envelope.ret}
    parameters = {key: value for key, value in parameters.items() if value}
    return parameters | ({"SMTPUTF8": ""} if envelope.smtputf8 else {})


def rcpt_parameters(message: Message) -> dict[str, dict[str, str]]:
    """Return what RCPT would carry, by recipient."""
    result = {}
    for each in message.envelope.recipients:
        parameters = {"NOTIFY": ",".join(each.notify), "ORCPT": each.orcpt_xtext()}
        result[each.forward_path] = {k: v for k, v in parameters.items() if v}
    return result


def sample(case: str) -> str:
    """Return the locator of a case."""
    (name,) = (n for n, each in SAMPLES.items() if of_case(each, case))
    return name


def of_case(each: EximSample, case: str) -> bool:
    """Tell whether a sample is of this case."""
    return each["case"] == case


def test_a_body_in_wire_format_is_not_converted(
    found: dict[str, SpooledMessage],
) -> None:
    """Its bare line ends stay what they are; only the last line is completed."""
    content = content_of(found[sample("wire format")])
    assert content.endswith(b"\r\n\r\n.dot\r\nbare\nLF, bare\rCR, no end\r\n")
    assert survey([content]).bare_newlines == 2


def test_states_of_the_samples_are_shown(found: dict[str, SpooledMessage]) -> None:
    """Frozen, logged in, done in the journal, done by an alias's child."""
    assert found[sample("frozen")].message.flags == ("frozen",)
    assert found[sample("login")].message.login == "jane"
    killed = found[sample("killed")].message.envelope
    assert killed.done == tuple(f"Done{n}@Example.ORG" for n in range(3))
    alias = found[sample("alias")].message
    assert (alias.flags, alias.envelope.done) == (
        ("children-done",),
        ("one@example.org",),
    )
    assert found[sample("named queue")].message.queue == "slow"


def test_a_person_sees_that_a_message_is_frozen(
    tmp_path: Path, found: dict[str, SpooledMessage]
) -> None:
    """In the table as in JSON."""
    spool = DATA / "exim"
    drainer = Drainer(tmp_path / "ledger.db", {"COLUMNS": "200"})
    shown = drainer.run("inspect", f"exim:{spool}").stdout
    name = found[sample("frozen")].message.native_id
    (line,) = (line for line in shown.splitlines() if name in line)
    assert "(frozen)" in line


# ---- which directories are read


def test_named_queues_and_frozen_mail_are_read_on_request(tmp_path: Path) -> None:
    """A plain listing shows Finput as well; a drain reads input alone."""
    for number, parts in enumerate((("input",), ("Finput",), ("slow", "input"))):
        place(tmp_path, name=f"{NAME[:-1]}{number}", parts=parts)

    def queues(**options: object) -> list[str]:
        listing = bool(options.pop("listing", False))
        url = f"exim:{tmp_path}"
        source = open_source(url, options=options, listing=listing)
        return sorted(each.message.queue for each in source.scan())

    assert queues() == ["input"]
    assert queues(listing=True) == ["Finput", "input"]
    assert queues(queues="slow") == ["slow"]
    assert queues(queues=["input", "slow"]) == ["input", "slow"]
    assert open_source(str(tmp_path), options={}).url == f"exim:{tmp_path}"


def test_what_cannot_be_a_queue_is_refused(tmp_path: Path) -> None:
    """By name, with what would be legal."""
    (tmp_path / "input").mkdir()
    for queues in (("a/b",), ("..",), ("",), ()):
        with pytest.raises(UsageError):
            EximSpool(tmp_path, queues=queues)
    with pytest.raises(SourceError) as caught:
        EximSpool(tmp_path, queues=("absent",))
    assert "input" in caught.value.hint
    with pytest.raises(SourceError) as caught:
        EximSpool(tmp_path / "input")
    assert f"exim:{tmp_path}" in caught.value.hint


def test_temporary_files_are_passed_over(tmp_path: Path) -> None:
    """And what Exim leaves when a message is done; logs are not read."""
    folder = place(tmp_path).parent
    for name in (f"hdr.{NAME}", f"{NAME}-K", f"{NAME}-J", "x-J", "x-K", "x.eml", "y"):
        (folder / name).write_bytes(b"")
    (tmp_path / "msglog").mkdir()
    (tmp_path / "msglog" / NAME).write_bytes(b"text")
    assert only(tmp_path).message.native_id == NAME
    assert code(only(tmp_path)) == ""


# ---- damage


@pytest.mark.parametrize(
    ("suffix", "data", "expected"),
    [
        ("-H", b"", "corrupt"),
        ("-H", header_file()[:60], "corrupt"),
        ("-H", b"\0" * 500, "corrupt"),
        ("-D", b"", "corrupt"),
        ("-D", b"\0" * 500, "corrupt"),
        ("-D", data_file(identifier=b"1xVXY1-0005y3-2N"), "corrupt"),
        ("-D", b"x" * 400 + b"-D\n", "corrupt"),
        ("-J", b"r@example.org", "corrupt"),
        ("-J", b"\0\0\0", "corrupt"),
        ("-J", b"r@example.org\n", "done-by-backup"),
    ],
)
def test_damage_is_listed_and_the_rest_goes_on(
    tmp_path: Path, suffix: str, data: bytes, expected: str
) -> None:
    """Whichever of the three files it is in."""
    path = place(tmp_path)
    path.with_name(NAME + suffix).write_bytes(data)
    place(tmp_path, name="1other")
    problems = {e.message.native_id: code(e) for e in EximSpool(tmp_path).scan()}
    assert problems == {NAME: expected, "1other": ""}


@pytest.mark.parametrize("suffix", ["-H", "-D", "-J"])
@pytest.mark.parametrize("kind", ["link", "pipe", "directory"])
def test_only_regular_files_are_read(tmp_path: Path, suffix: str, kind: str) -> None:
    """Each of the files is opened with the same care, and never waited for."""
    path = place(tmp_path).with_name(NAME + suffix)
    outside = tmp_path / "outside"
    path.touch()
    path.rename(outside)
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    spooled = only(tmp_path, drops=True)
    assert code(spooled) == "not-a-file"
    with pytest.raises(MessageUnreadable):
        content_of(spooled)
    if suffix != "-J":
        source = EximSpool(tmp_path, acknowledge="remove")
        assert source.acknowledge([spooled.message]) == []
    assert outside.exists()


OCTETS = st.binary(max_size=80)


@settings(max_examples=60, deadline=None)
@given(OCTETS, OCTETS, OCTETS, st.integers(0, 400))
def test_whatever_the_files_contain_a_scan_goes_on(
    head: bytes, body: bytes, journal: bytes, at: int
) -> None:
    """Each message is listed once, and its content is bytes or a named problem."""
    with tempfile.TemporaryDirectory() as folder:
        sound = header_file()
        path = place(Path(folder), sound[:at] + head + sound[at:], data_file(body))
        path.with_name(f"{NAME}-J").write_bytes(journal)
        spooled = only(Path(folder))
        with suppress(MessageUnreadable):
            assert content_of(spooled).endswith(b"\r\n")


@pytest.mark.parametrize("lines", [3, 100_000])
def test_a_body_that_is_cut_off_is_never_sent_whole(tmp_path: Path, lines: int) -> None:
    """The -H says how many lines it had; a large one shows at its end."""
    variables = (*VARIABLES, b"-body_linecount %d" % (lines + 1))
    place(tmp_path, header_file(variables=variables), data_file(b"line\n" * lines))
    with pytest.raises(MessageUnreadable, match="cut off"):
        content_of(only(tmp_path))


def test_a_body_without_a_header_is_incomplete(tmp_path: Path) -> None:
    """Being received; a header without a body is being removed."""
    path = place(tmp_path)
    header = path.rename(tmp_path / "aside")
    spooled = only(tmp_path)
    assert (code(spooled), spooled.message.native_id) == ("incomplete", NAME)
    with pytest.raises(MessageUnreadable, match="incomplete"):
        content_of(spooled)
    header.rename(path)
    path.with_name(f"{NAME}-D").unlink()
    assert code(only(tmp_path)) == "vanished"


def test_a_header_file_beyond_measure_is_not_read(tmp_path: Path) -> None:
    """Sizes are capped; a sparse file costs nothing to make."""
    path = place(tmp_path)
    os.truncate(path, 1 << 34)
    assert code(only(tmp_path)) == "corrupt"


# ---- locks


@contextmanager
def working_on(path: Path) -> Iterator[None]:
    """Hold Exim's lock on a message in another process."""
    script = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1], 'r+b')\n"
        "fcntl.lockf(file, fcntl.LOCK_EX, int(sys.argv[2]), 0)\n"
        "print(flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(path), str(len(NAME) + 3)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        try:
            yield
        finally:
            process.send_signal(signal.SIGKILL)


def test_a_message_that_exim_works_on_is_left_to_it(tmp_path: Path) -> None:
    """It is listed as locked, not sent, not removed; and later it is."""
    path = place(tmp_path, data=data_file(b"line\n" * 100_000))
    source = EximSpool(tmp_path, acknowledge="remove")
    (free,) = source.scan()
    with working_on(path.with_name(f"{NAME}-D")):
        (spooled,) = source.scan()
        assert code(spooled) == "locked"
        assert code(source.open(free.message)) == "locked"
        assert spooled.message.id == free.message.id
        with pytest.raises(MessageUnreadable, match="locked"):
            content_of(free)
        assert source.acknowledge([free.message]) == []
    assert path.exists()
    assert code(only(tmp_path)) == ""
    assert source.acknowledge([free.message]) == [free.message.id]
    assert not list((tmp_path / "input").iterdir())


def test_reading_leaves_no_lock_behind(tmp_path: Path) -> None:
    """And never ends one that this very process holds."""
    path = place(tmp_path).with_name(f"{NAME}-D")
    content_of(only(tmp_path))
    with path.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, len(NAME) + 3)


# ---- a server that runs


def test_a_daemons_socket_gives_it_away() -> None:
    """Its name says which spool; the other is free."""
    with (
        tempfile.TemporaryDirectory(dir="/tmp") as name,  # a socket's name is short
        closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as listener,
    ):
        one, two = Path(name) / "one", Path(name) / "two"
        place(one)
        place(two)
        EximSpool(one).refuse_if_live()
        listener.bind(f"\0{one}/exim_daemon_notify")
        with pytest.raises(UsageError, match="running") as caught:
            EximSpool(one).refuse_if_live()
        EximSpool(two).refuse_if_live()
    assert "stop" in caught.value.hint


def test_a_process_in_the_spool_gives_it_away(tmp_path: Path) -> None:
    """Every Exim stands in its spool directory: queue runners as well."""
    place(tmp_path / "spool")
    program = tmp_path / "exim4"
    sleep = shutil.which("sleep")
    assert sleep
    shutil.copy(sleep, program)
    command = [str(program), "60"]
    with subprocess.Popen(command, cwd=tmp_path / "spool") as process:
        try:
            deadline = time.monotonic() + 5  # its name is a moment late
            while not exim_runs(str(tmp_path / "spool")):
                assert time.monotonic() < deadline
            assert not exim_runs(str(tmp_path))
        finally:
            process.kill()
    assert not exim_runs(str(tmp_path / "spool"))


# ---- removal


def test_everything_of_a_message_is_removed_and_nothing_else(tmp_path: Path) -> None:
    """Log, body, header, journal; split or flat."""
    path = place(tmp_path, parts=("input", "1"))
    other = place(tmp_path, name="1other", parts=("input", "1"))
    logs = [tmp_path / "msglog" / "1" / name for name in (NAME, "1other")]
    logs[0].parent.mkdir(parents=True)
    for log in (*logs, path.with_name(f"{NAME}-J"), path.with_name("1other-J")):
        log.write_bytes(b"x@y\n")
    source = EximSpool(tmp_path, acknowledge="remove")
    (message,) = (e.message for e in source.scan() if e.message.native_id == NAME)
    assert source.acknowledge([message]) == [message.id]
    left = {each.name for each in tmp_path.rglob("*") if each.is_file()}
    assert left == {"1other-H", "1other-D", "1other-J", "1other"}
    assert other.exists()
    assert source.acknowledge([message]) == [message.id]


def test_a_removal_that_a_crash_cut_short_is_repeated(tmp_path: Path) -> None:
    """The body goes first, and the identity does not need it."""
    path = place(tmp_path)
    before = only(tmp_path).message
    path.with_name(f"{NAME}-D").unlink()
    after = only(tmp_path).message
    assert after.id == before.id
    source = EximSpool(tmp_path, acknowledge="remove")
    assert source.acknowledge([after]) == [before.id]
    assert not list((tmp_path / "input").iterdir())


def test_a_removal_that_is_not_allowed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to do; the mail stays."""
    path = place(tmp_path)
    source = EximSpool(tmp_path, acknowledge="remove")
    (spooled,) = source.scan()

    def refuse(name: str, **_: int) -> None:
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(SourceError, match="cannot remove") as caught:
        source.acknowledge([spooled.message])
    assert "keep" in caught.value.hint
    assert path.exists()
