"""Bad input: a clear error, the documented exit code, nothing lost, nothing sent twice."""  # noqa: E501

import contextlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from drainer.ledger import schema
from tests.support.command.installed import write_maildir
from tests.support.command.runner import Bench, Result, call, end
from tests.support.mta.postfix import free_port
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Delay, in_turn, per_recipient
from tests.support.spools.postfix_files import record

ALICE, BOB, CAROL = "alice@example.org", "bob@example.org", "carol@example.org"
StartPeer = Callable[..., PeerThread]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Give a spool, a ledger and a configuration, in a current folder of their own."""
    monkeypatch.chdir(tmp_path)
    return Bench(tmp_path)


def assert_clear(result: Result, code: int, *words: str) -> None:
    """Check a refusal: its exit code, what it names, and that it is no traceback."""
    assert result.code == code, result
    assert "Traceback" not in result.stderr
    assert result.stderr.strip()
    plain = " ".join(result.stderr.split())
    for word in words:
        assert word in plain, result.stderr


def dump(ledger: Path) -> str:
    """Return every row of a ledger."""
    with contextlib.closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
        return "\n".join(db.iterdump())


def sent(peer: PeerThread) -> list[str]:
    """Return every recipient that the peer took a message for, once each time."""
    return [path for message in peer.accepted for path in message.forward_paths]


# ---- sources


def nothing(_root: Path) -> str:
    """Name a folder that does not exist."""
    return "postfix:/nonexistent/spool"


def no_spool(root: Path) -> str:
    """Name a folder with something else in it."""
    (root / "photos").mkdir()
    (root / "photos" / "cat.jpg").write_bytes(b"\xff\xd8")
    return f"postfix:{root / 'photos'}"


def no_maildir(root: Path) -> str:
    """Name a folder without new and cur."""
    (root / "mail").mkdir()
    return f"maildir:{root / 'mail'}"


def a_file(root: Path) -> str:
    """Name a file."""
    (root / "file").write_text("x")
    return f"postfix:{root / 'file'}"


def unknown_format(_root: Path) -> str:
    """Name a format that nobody knows."""
    return "sendmail8:/var/spool/mqueue"


def unknown_name(_root: Path) -> str:
    """Name a source that is configured nowhere."""
    return "bacup"


def empty_name(_root: Path) -> str:
    """Name nothing at all."""
    return ""


SOURCES = {
    nothing: "/nonexistent/spool",
    no_spool: "photos",
    no_maildir: "mail",
    a_file: "file",
    unknown_format: "sendmail8",
    unknown_name: "bacup",
    empty_name: "source",
}


@pytest.mark.parametrize("command", ["drain", "inspect", "plan"])
@pytest.mark.parametrize(
    ("make", "word"), SOURCES.items(), ids=[make.__name__ for make in SOURCES]
)
def test_what_is_no_source_is_refused_by_name(
    bench: Bench, command: str, make: Callable[[Path], str], word: str
) -> None:
    """Exit 2, saying what was wrong with which one; no ledger is made."""
    arguments = [command, make(bench.root), "--config", str(bench.config)]
    if command == "drain":
        arguments += ["--ledger", str(bench.ledger)]
    assert_clear(call(*arguments), 2, "error:", word)
    assert not bench.ledger.exists()


def test_one_bad_source_of_several_stops_before_anything_is_sent(
    peer: StartPeer, bench: Bench
) -> None:
    """The good one is not drained by half a command."""
    bench.port = peer().port
    bench.add(ALICE)
    assert bench.drain("postfix:/nonexistent").code == 2
    assert not bench.ledger.exists()


def test_a_named_source_is_drained_with_its_options(
    peer: StartPeer, bench: Bench
) -> None:
    """[sources.NAME] gives URL and options; an unknown option is exit 2."""
    server = peer()
    bench.port = server.port
    bench.add(ALICE)
    path = bench.config
    text = path.read_text() + f"[sources.old]\nurl = 'postfix:{bench.spool}'\n"
    path.write_text(text)
    base = ["--config", path, "--ledger", bench.ledger]
    assert call("drain", "old", "--no-check", *base).code == 0
    assert sent(server) == [ALICE]
    path.write_text(text + "colour = 'blue'\n")
    assert_clear(call("drain", "old", "--no-check", *base), 2, "colour")


def test_an_address_with_control_characters_never_reaches_the_wire(
    peer: StartPeer, bench: Bench
) -> None:
    """CR, LF or NUL in an address: held, shown escaped, and the rest goes on."""
    server = peer()
    bench.port = server.port
    bench.add(
        envelope=[
            record("R", b"a@example.org>\r\nRCPT TO:<evil@example.org"),
            record("R", BOB),
        ]
    )
    bench.add(CAROL, sender="s\r\nDATA@example.com")
    bench.add(ALICE)
    assert bench.drain().code == 5
    assert ALICE in sent(server)
    assert not any(b"evil" in command.line for command in server.commands)
    assert {"held", "delivered"} >= set(  # noqa: C401
        fact["state"] for fact in bench.run("list", "--json").lines
    )
    listed = call("inspect", f"postfix:{bench.spool}", "--json")
    problems = [fact["problem"] for fact in listed.lines]
    assert [p["code"] for p in problems if p] == ["bad-address"]
    held = [r for fact in listed.lines for r in fact["recipients"] if "problem" in r]
    assert [r["problem"]["code"] for r in held] == ["bad-address"]
    assert BOB in sent(server)
    assert "\r" not in listed.stdout


# ---- permission


def unprivileged(*args: object) -> Result:
    """Run a command without root's power to read and write everything."""
    powers = "-dac_override,-dac_read_search"
    less = ["setpriv", "--bounding-set", powers, "--inh-caps", powers]
    process = subprocess.Popen(
        [*(less if os.geteuid() == 0 else []), sys.executable, "-m", "drainer"]
        + [str(arg) for arg in args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return end(process)


@contextlib.contextmanager
def take_rights(path: Path, mode: int = 0) -> Iterator[None]:
    """Take away permissions for a while."""
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(before)


def test_a_spool_that_may_not_be_read_is_refused(peer: StartPeer, bench: Bench) -> None:
    """Exit 2 for its root and for one of its queues, naming it; nothing is sent."""
    server = peer()
    bench.port = server.port
    bench.add(ALICE)
    drain = bench.arguments("drain", f"postfix:{bench.spool}", "--no-check")
    for folder in (bench.spool, bench.spool / "deferred"):
        with take_rights(folder):
            result = unprivileged(*drain)
        assert_clear(result, 2, str(folder), "ermission denied")
    assert sent(server) == []
    assert unprivileged(*drain).code == 0


def test_a_file_that_may_not_be_read_is_held_and_goes_when_it_can(
    peer: StartPeer, bench: Bench
) -> None:
    """The others are sent; the next drain after the repair sends it too."""
    server = peer()
    bench.port = server.port
    bench.add(ALICE)
    name = bench.add(BOB)
    drain = bench.arguments("drain", f"postfix:{bench.spool}", "--no-check")
    with take_rights(bench.spool / "deferred" / name[0] / name):
        result = unprivileged(*drain)
    assert result.code == 5, result
    assert sent(server) == [ALICE]
    assert unprivileged(*drain).code in (0, 5)
    assert sorted(sent(server)) == [ALICE, BOB]


def test_a_ledger_that_may_not_be_written_stops_before_anything_is_sent(
    peer: StartPeer, bench: Bench
) -> None:
    """Exit 2 with the path, whether the folder or the file is closed."""
    server = peer()
    bench.port = server.port
    bench.add(ALICE)
    folder = bench.root / "state"
    folder.mkdir()
    drain = ["drain", f"postfix:{bench.spool}", "--no-check", "--config", bench.config]
    with take_rights(folder, 0o500):
        result = unprivileged(*drain, "--ledger", folder / "ledger.db")
    assert_clear(result, 2, str(folder / "ledger.db"), "--ledger")
    (folder / "ledger.db").write_bytes(b"")
    with take_rights(folder / "ledger.db"):
        result = unprivileged(*drain, "--ledger", folder / "ledger.db")
    assert_clear(result, 2, str(folder / "ledger.db"))
    with take_rights(folder, 0o500):
        result = unprivileged(*drain, "--ledger", folder / "deeper" / "ledger.db")
    assert_clear(result, 2, "deeper")
    assert sent(server) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="nobody else can")
def test_what_root_makes_in_the_services_folder_is_the_services(
    peer: StartPeer, bench: Bench
) -> None:
    """Ledger and locks; a file that is there by a hard link is refused."""
    bench.port = peer().port
    folder = bench.root / "state"
    folder.mkdir()
    os.chown(folder, 12345, 23456)
    kept = bench.root / "roots"
    kept.write_bytes(b"")
    (folder / "linked.db").hardlink_to(kept)
    bench.add(ALICE)
    drain = ["drain", f"postfix:{bench.spool}", "--no-check", "--config", bench.config]
    call(*drain, "--ledger", folder / "ledger.db")
    up = ["hook", "up", "--config", bench.config, "--ledger", folder / "linked.db"]
    assert call(*up).code == 2
    made = [p for p in folder.rglob("*") if not p.name.startswith("linked")]
    assert {"ledger.db", "ledger.db.locks"} <= {path.name for path in made}
    assert [
        p for p in made if (p.stat().st_uid, p.stat().st_gid) != (12345, 23456)
    ] == []
    assert (kept.stat().st_uid, (folder / "linked.db").stat().st_uid) == (0, 0)


def test_a_configuration_that_may_not_be_read_is_refused(bench: Bench) -> None:
    """Rather than ignored."""
    with take_rights(bench.config):
        result = unprivileged("config", "--config", bench.root / "drainer.toml")
        assert_clear(result, 2, "drainer.toml", "readable")


# ---- ledgers


def broken_file(path: Path) -> None:
    """Write what is no database."""
    path.write_bytes(
        b"this is no database, but it is long enough to look like one" * 50
    )


def folder(path: Path) -> None:
    """Make a folder of that name."""
    path.mkdir()


def foreign(path: Path) -> None:
    """Make a database of somebody else."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE customers (name TEXT)")


def of_another_version(path: Path) -> None:
    """Make a ledger of the future."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE meta (name TEXT, value TEXT)")
        database.execute("INSERT INTO meta VALUES ('version', '99')")
        database.commit()


def without_a_version(path: Path) -> None:
    """Make a ledger that lost its version."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE meta (name TEXT, value TEXT)")


LEDGERS: dict[Callable[[Path], None], tuple[str, ...]] = {
    broken_file: ("cannot open the ledger", "not a database", "--ledger"),
    folder: ("ledger.db",),
    foreign: ("not a ledger of drainer", "--ledger"),
    of_another_version: (
        "version 99",
        f"version {schema.VERSION}",
        "the drainer that wrote it",
        "--ledger",
    ),
    without_a_version: ("version None", "--ledger"),
}


@pytest.mark.parametrize("command", ["drain", "status", "list", "requeue"])
@pytest.mark.parametrize(
    ("make", "words"), LEDGERS.items(), ids=[make.__name__ for make in LEDGERS]
)
def test_what_is_no_ledger_is_refused_and_left_alone(
    peer: StartPeer,
    bench: Bench,
    command: str,
    make: Callable[[Path], None],
    words: tuple[str, ...],
) -> None:
    """Exit 2, and not a byte of it is changed."""
    server = peer()
    bench.port = server.port
    bench.add(ALICE)
    make(bench.ledger)
    before = bench.ledger.read_bytes() if bench.ledger.is_file() else None
    arguments = {
        "drain": ["drain", f"postfix:{bench.spool}", "--no-check"],
        "requeue": ["requeue", "--state", "held", "--reason", "x"],
    }.get(command, [command])
    assert_clear(bench.run(*arguments), 2, str(bench.ledger), *words)
    if before is not None:
        assert bench.ledger.read_bytes() == before
    assert server.commands == []


@pytest.mark.parametrize("url", ["nosuch://x/y", "oracle://db/x", "http://[", "://"])
def test_a_ledger_url_that_cannot_be_is_refused(bench: Bench, url: str) -> None:
    """An unknown database, a driver that is not installed, nonsense: exit 2."""
    bench.add(ALICE)
    arguments = ["drain", f"postfix:{bench.spool}", "--to", "127.0.0.1", "--no-check"]
    assert_clear(call(*arguments, "--ledger", url), 2, "ledger")


@pytest.mark.parametrize("kind", ["mysql", "postgresql"])
def test_a_ledger_whose_server_is_away_is_no_mistake(bench: Bench, kind: str) -> None:
    """Exit 1: the same command works when the server runs."""
    bench.add(ALICE)
    arguments = ["drain", f"postfix:{bench.spool}", "--to", "127.0.0.1", "--no-check"]
    url = f"{kind}://127.0.0.1:1/x"
    assert_clear(call(*arguments, "--ledger", url), 1, "ledger", "see that")


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["list"],
        ["show", "abcd"],
        ["why", "abcd"],
        ["hold", "abcd", "--reason", "x"],
        ["requeue", "--state", "held", "--reason", "x"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_without_a_ledger_there_is_nothing_to_tell(
    bench: Bench, arguments: list[str]
) -> None:
    """Reading never makes one: exit 2."""
    assert_clear(bench.run(*arguments), 2, "there is no ledger", str(bench.ledger))
    assert not bench.ledger.exists()


# ---- arguments


MISTAKES: dict[str, tuple[list[str], list[str]]] = {
    "a rate in words": (["--rate", "fast"], ["--rate", "fast", "20/second"]),
    "a rate of nothing": (["--rate", "0/second"], ["--rate", "0/second"]),
    "a negative rate": (["--rate=-5/second"], ["--rate", "-5/second"]),
    "no connections": (["--connections", "0"], ["--connections"]),
    "too many connections": (["--connections", "501"], ["--connections"]),
    "connections in words": (["--connections", "many"], ["--connections", "integer"]),
    "a wait without a unit": (
        ["--give-up-after", "5"],
        ["--give-up-after", "write e.g. 90s"],
    ),
    "a wait beyond all time": (
        ["--give-up-after", "9999999999999d"],
        ["--give-up-after"],
    ),
    "a host with a blank": (
        ["--to", "mx 1"],
        ["'mx 1' is not a valid host", "HOST:PORT"],
    ),
    "a port out of range": (["--to", "mx1:99999"], ["is not a valid host"]),
    "a port in words": (["--to", "mx1:smtp"], ["is not a valid host"]),
    "an unknown option": (["--fast"], ["--fast", "No such option"]),
    "an unknown queue": (["--queue", "outgoing"], ["outgoing", "incoming"]),
    "a configuration that is absent": (
        ["--config", "absent.toml"],
        ["absent.toml", "drainer init"],
    ),
}


@pytest.mark.parametrize(("arguments", "words"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_mistake_on_the_command_line_is_explained(
    bench: Bench, arguments: list[str], words: list[str]
) -> None:
    """Exit 2, naming the flag and what would be right; nothing is opened."""
    bench.add(ALICE)
    base = ["drain", f"postfix:{bench.spool}", "--ledger", str(bench.ledger)]
    if "--to" not in arguments:
        base += ["--to", "127.0.0.1:1"]
    assert_clear(call(*base, "--no-check", *arguments), 2, *words)
    assert not bench.ledger.exists()


@pytest.mark.parametrize(
    "arguments",
    [[], ["drain"], ["nosuch"], ["drain", "--to"], ["status", "--nosuch"], ["show"]],
    ids=" ".join,
)
def test_usage_is_exit_2(arguments: list[str]) -> None:
    """As everywhere, also without arguments."""
    assert call(*arguments).code == 2


def test_no_primary_at_all_is_refused(bench: Bench) -> None:
    """With what to give."""
    bench.add(ALICE)
    result = call("drain", f"postfix:{bench.spool}", "--ledger", bench.ledger)
    assert_clear(result, 2, "no primary is named", "--to HOST[:PORT]")
    assert not bench.ledger.exists()


def test_a_wrong_host_sends_nothing(bench: Bench) -> None:
    """A name that does not resolve, a port where nothing listens: exit 3.

    Neither binds the spool: the next name that is given is taken.
    """
    bench.add(ALICE)
    for to in ("primary.invalid", f"127.0.0.1:{free_port()}"):
        result = bench.drain("--to", to, check=True)
        assert_clear(result, 3, to, "not ready")
        assert bench.run("status", "--json").json["states"]["delivered"] == 0


# ---- one spool, one primary


def test_the_same_spool_to_another_primary_gets_only_what_is_left(
    peer: StartPeer, bench: Bench
) -> None:
    """What was sent is not sent there too; the rest goes where it is told to."""
    first, second = peer(), peer()
    bench.port = first.port
    bench.add(ALICE)
    assert bench.drain().code == 0
    bench.add(BOB)
    assert bench.drain("--to", f"127.0.0.1:{second.port}").code == 0
    assert sent(first) == [ALICE]
    assert sent(second) == [BOB]
    assert bench.drain().code == 0
    assert sent(first) == [ALICE]


def test_a_rehearsal_acknowledges_nothing_and_remembers_nothing(
    peer: StartPeer, bench: Bench
) -> None:
    """It may go anywhere, again and again; the real drain then sends everything."""
    real, trial = peer(), peer()
    maildir = bench.root / "backup"
    paths = write_maildir(maildir, 3)
    before = sorted(maildir.rglob("*"))
    base = ["--no-check", "--config", bench.config, "--ledger", bench.ledger]
    for _ in range(2):
        to = ["--to", f"127.0.0.1:{trial.port}", "--rehearse"]
        assert call("drain", f"maildir:{maildir}", *to, *base).code == 0
    assert sorted(sent(trial)) == sorted(paths * 2)
    assert sorted(maildir.rglob("*")) == before
    assert not bench.ledger.exists()
    to = ["--to", f"127.0.0.1:{real.port}"]
    assert call("drain", f"maildir:{maildir}", *to, *base).code == 0
    assert sorted(sent(real)) == sorted(paths)
    assert [path for path in maildir.rglob("*") if path.is_file()] == []
    drained = [p for p in Path(f"{maildir}.drained").rglob("*") if p.is_file()]
    assert len(drained) == 3


def test_a_dry_run_writes_nothing_and_asks_nobody(
    peer: StartPeer, bench: Bench
) -> None:
    """No ledger, no connection, nothing moved: only what would be done."""
    server = peer()
    bench.port = server.port
    bench.add(ALICE, BOB)
    bench.add("carol@other.example")
    bench.config.touch()
    before = sorted(bench.root.rglob("*"))
    result = bench.drain("--dry-run", check=True)
    assert result.code == 0
    assert result.json["messages"] == 2
    assert result.json["recipients"] == 2
    assert result.json["domains"] == {"example.org": 2}
    assert result.json["held"] == {"not-for-this-primary": 1}
    assert sorted(bench.root.rglob("*")) == before
    assert server.connections == 0


# ---- two at a time


def test_a_second_drain_that_finds_everything_taken_says_so(
    peer: StartPeer, bench: Bench
) -> None:
    """Exit 6, while the first one goes on undisturbed."""
    server = peer(dot=Delay(0.3, "250 2.0.0 ok"))
    bench.port = server.port
    people = [f"user{n}@example.org" for n in range(8)]
    for path in people:
        bench.add(path)
    first = bench.start("drain", f"postfix:{bench.spool}", "--no-check")
    server.wait(lambda: len(server.messages) >= 1, timeout=30)
    second = bench.drain()
    assert_clear(second, 6, "another drain", "drainer status")
    assert end(first).code == 0
    assert sorted(sent(server)) == people
    bench.assert_balanced()


def test_two_drains_at_once_share_the_work_without_doubles(
    peer: StartPeer, bench: Bench
) -> None:
    """Whichever comes first claims; the last one to end sees everything final."""
    server = peer(dot=Delay(0.02, "250 2.0.0 ok"))
    bench.port = server.port
    bench.configure(primary={"connections": 2})
    people = [f"user{n:02}@example.org" for n in range(60)]
    for path in people:
        bench.add(path)
    both = [
        bench.start("drain", f"postfix:{bench.spool}", "--no-check") for _ in range(2)
    ]
    codes = [end(process).code for process in both]
    assert 0 in codes
    assert set(codes) <= {0, 5, 6}
    assert sorted(sent(server)) == people
    assert set(bench.states().values()) == {"delivered"}
    bench.assert_balanced()


# ---- who reads it leaves


def test_a_drain_outlives_its_reader(peer: StartPeer, bench: Bench) -> None:
    """Somebody piped it into head: the mail goes on."""
    server = peer(dot=Delay(0.3, "250 2.0.0 ok"))
    bench.port = server.port
    for path in (ALICE, BOB, CAROL):
        bench.add(path)
    process = bench.start("drain", f"postfix:{bench.spool}", "--no-check")
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(timeout=60) == 0
    assert process.stdout is not None
    process.stdout.close()
    assert sorted(sent(server)) == [ALICE, BOB, CAROL]


def test_a_list_that_nobody_reads_to_its_end_is_no_error(
    peer: StartPeer, bench: Bench
) -> None:
    """`drainer list | head -1` prints a line and no traceback."""
    bench.port = peer().port
    bench.add(*(f"user{n}@example.org" for n in range(3000)))
    assert bench.run("drain", f"postfix:{bench.spool}", "--no-check").code == 0
    process = bench.start("list", "--json")
    assert process.stdout is not None
    assert "user" in process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    process.wait(timeout=30)


@pytest.mark.parametrize("words", ["--help", "list --help", "config"])
def test_a_pipe_that_is_closed_before_the_output_is_silent(words: str) -> None:
    """A shell shows 141 for that; Rich would end with 1."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "drainer", *words.split()]
    ended = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


# ---- the operator's verbs


@pytest.fixture
def mixed(peer: StartPeer, bench: Bench) -> tuple[Bench, PeerThread]:
    """Give a ledger with a recipient delivered, one deferred, one refused, one held."""
    replies = {BOB: "450 4.7.1 later", CAROL: "550 5.1.1 unknown"}
    server = peer(rcpt=per_recipient(dict(replies)))
    bench.port = server.port
    bench.configure(retry={"first": "1h", "max": "1h"})
    for path in (ALICE, BOB, CAROL, "dave@other.example"):
        bench.add(path, sender=f"{path.partition('@')[0]}@sender.example")
    assert bench.drain().code == 5
    assert bench.states() == {
        ALICE: "delivered",
        BOB: "deferred",
        CAROL: "bounce-pending",
        "dave@other.example": "held",
    }
    return bench, server


VERBS: dict[str, dict[str, str]] = {
    "hold": {BOB: "held", CAROL: "held"},
    "release": {"dave@other.example": "pending"},
    "requeue": {BOB: "pending", CAROL: "pending", "dave@other.example": "pending"},
    "discard": {
        BOB: "discarded",
        CAROL: "discarded",
        "dave@other.example": "discarded",
    },
}


@pytest.mark.parametrize(("verb", "changes"), VERBS.items(), ids=list(VERBS))
def test_a_verb_touches_what_it_may_and_says_how_many(
    mixed: tuple[Bench, PeerThread], verb: str, changes: dict[str, str]
) -> None:
    """Dry first, then for good, with the reason on record; what is final stays."""
    bench, _ = mixed
    before, all_of_it = bench.states(), dump(bench.ledger)
    chosen = [verb, "--sender", "sender.example", "--json"]
    dry = bench.run(*chosen, "--dry-run")
    assert (dry.code, dry.json["recipients"]) == (0, len(changes))
    *listed, total = bench.run(*chosen[:-1], "--dry-run").stdout.splitlines()
    assert {tuple(line.split()[1:3]) for line in listed} == {
        (path, f"{before[path]}:") for path in changes
    }
    assert total.startswith(f"{len(changes)} recipients would be ")
    assert dump(bench.ledger) == all_of_it
    refused = bench.run(*chosen)
    assert_clear(refused, 2, f"{verb} needs --reason")
    assert bench.states() == before
    done = bench.run(*chosen, "--reason", "the CEO asked")
    assert (done.code, done.json["recipients"]) == (0, len(changes))
    assert bench.states() == before | changes
    again = bench.run(*chosen, "--reason", "twice")
    assert again.code == 0
    assert bench.states() == before | changes
    for path in changes:
        story = bench.why(bench.recipients()[path]["id"])["decisions"]
        told = [d for d in story if d["kind"] == "operator"][0]  # noqa: RUF015
        assert told["rule"] == f"operator-{verb}"
        assert told["evidence"]["reason"] == "the CEO asked"
        assert told["evidence"]["before"] == before[path]
    bench.assert_balanced()


def test_what_is_held_is_not_sent_until_it_is_released(
    mixed: tuple[Bench, PeerThread],
) -> None:
    """Hold, drain, release, drain."""
    bench, server = mixed
    server.script = type(server.script)()
    assert bench.run("hold", "--recipient", "bob", "--reason", "x").code == 0
    assert bench.drain().code == 5
    assert sent(server) == [ALICE]
    assert bench.run("release", "--recipient", "bob", "--reason", "x").code == 0
    assert bench.drain().code == 5
    assert sent(server) == [ALICE, BOB]


def test_a_foreign_recipient_needs_a_release_a_requeue_is_not_enough(
    mixed: tuple[Bench, PeerThread],
) -> None:
    """Only mail for [primary] domains is sent, unless a person overrules that."""
    bench, server = mixed
    dave = "dave@other.example"
    assert bench.run("requeue", "--recipient", dave, "--reason", "x").code == 0
    assert bench.drain().code == 5
    assert bench.states()[dave] == "held"
    assert dave not in sent(server)
    assert bench.run("release", "--recipient", dave, "--reason", "x").code == 0
    assert bench.drain().code == 5
    assert bench.states()[dave] == "delivered"


def test_a_foreign_recipient_does_not_hold_those_beside_it(
    peer: StartPeer, bench: Bench
) -> None:
    """Two recipients of one message, tried again: each is decided for itself."""
    server = peer(rcpt=in_turn("450 4.7.1 later", "250 2.1.5 ok"))
    bench.port = server.port
    bench.add(BOB, "dave@other.example")
    assert bench.drain().code == 5
    everything = ["requeue", "--domain", "example.org", "--reason", "x"]
    assert bench.run(*everything).code == 0
    foreign = ["requeue", "--domain", "other.example", "--reason", "x"]
    assert bench.run(*foreign).code == 0
    assert bench.drain().code == 5
    assert bench.states() == {BOB: "delivered", "dave@other.example": "held"}
    assert sent(server) == [BOB]


def test_a_recipient_that_the_backup_has_done_does_not_hold_those_beside_it(
    peer: StartPeer, bench: Bench
) -> None:
    """The spool changed underneath: that one is held, the other one is delivered."""
    server = peer(rcpt="450 4.7.1 later")
    bench.port = server.port
    name = bench.add(ALICE, BOB)
    assert bench.drain().code == 5
    path = bench.spool / "deferred" / name[0] / name
    data = path.read_bytes()
    assert record("R", ALICE) in data
    path.write_bytes(data.replace(record("R", ALICE), record("D", ALICE)))
    server.script = type(server.script)()
    bench.run("requeue", "--state", "deferred", "--reason", "x")
    assert bench.drain().code == 5
    assert bench.states() == {ALICE: "held", BOB: "delivered"}
    assert sent(server) == [BOB]
    bench.assert_balanced()


def test_a_hold_during_a_drain_wins(peer: StartPeer, bench: Bench) -> None:
    """What a drain has claimed and not begun yet may still be held back."""
    server = peer(dot=Delay(0.5, "250 2.0.0 ok"))
    bench.port = server.port
    people = [f"user{n}@example.org" for n in range(6)]
    for path in people:
        bench.add(path)
    drain = bench.start("drain", f"postfix:{bench.spool}", "--no-check")
    server.wait(lambda: len(server.messages) >= 1, timeout=30)
    begun = {r.forward_path for m in server.transactions for r in m.recipients}
    late = next(path for path in reversed(people) if path not in begun)
    assert bench.run("hold", "--recipient", late, "--reason", "wait").code == 0
    assert end(drain).code == 5
    assert bench.states() == {p: "held" if p == late else "delivered" for p in people}
    assert sorted(sent(server)) == [path for path in people if path != late]
    bench.assert_balanced()


def test_what_was_discarded_is_final(mixed: tuple[Bench, PeerThread]) -> None:
    """Nothing is left: exit 0, and nothing more is sent."""
    bench, server = mixed
    every = ["--state", "deferred", "--state", "held", "--state", "bounce-pending"]
    assert bench.run("discard", *every, "--reason", "spam").code == 0
    assert bench.drain().code == 0
    assert sent(server) == [ALICE]
    assert bench.run("requeue", "--state", "discarded", "--reason", "x").code == 0
    assert bench.states()[BOB] == "discarded"


def test_a_requeued_refusal_is_tried_again(mixed: tuple[Bench, PeerThread]) -> None:
    """When the primary has been mended."""
    bench, server = mixed
    server.script = type(server.script)()
    assert bench.run("requeue", "--reply", "unknown", "--reason", "mended").code == 0
    bench.drain()
    assert sent(server) == [ALICE, CAROL]


WRONG: dict[str, tuple[list[str], list[str]]] = {
    "neither id nor filter": (["--reason", "x"], ["needs an ID or a filter"]),
    "an unknown id": (["ffffffff", "--reason", "x"], ["no message", "drainer list"]),
    "an unknown state": (
        ["--state", "lost", "--reason", "x"],
        ["'lost' is not a state", "bounce-pending"],
    ),
    "an age without a unit": (
        ["--older-than", "5", "--reason", "x"],
        ["is not a valid duration", "90s"],
    ),
    "a size that is none": (
        ["--larger-than", "big", "--reason", "x"],
        ["is not a size", "5MB"],
    ),
}


@pytest.mark.parametrize("verb", ["hold", "release", "requeue", "discard"])
@pytest.mark.parametrize(("arguments", "words"), WRONG.values(), ids=list(WRONG))
def test_a_verb_that_is_not_understood_changes_nothing(
    empty: Bench, verb: str, arguments: list[str], words: list[str]
) -> None:
    """Exit 2, with what would be right."""
    assert_clear(empty.run(verb, *arguments), 2, *words)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Give a ledger in which nothing happened."""
    made = Bench(tmp_path_factory.mktemp("empty"))
    with PeerThread() as server:
        made.port = server.port
        assert made.drain().code == 0
    return made


def test_an_id_may_be_a_prefix_a_queue_id_or_a_message_id(
    mixed: tuple[Bench, PeerThread],
) -> None:
    """Whatever the operator has at hand; what names several messages is refused."""
    bench, _ = mixed
    fact = bench.recipients()[BOB]
    names = (fact["id"], fact["id"][:10], fact["native_id"], fact["message_id"])
    for name in (*names, fact["message_id"].strip("<>"), f" {fact['native_id']} "):
        assert bench.run("show", name, "--json").json["id"] == fact["id"]
    assert_clear(bench.run("show", "zzzz"), 2, "'zzzz'")
    assert_clear(bench.run("why", ""), 2, "no message")


def test_filters_narrow_a_list(mixed: tuple[Bench, PeerThread]) -> None:
    """Everything that is given must hold; a percent sign is only that."""
    bench, _ = mixed
    cases: dict[tuple[str, ...], set[str]] = {
        ("--state", "deferred"): {BOB},
        ("--domain", "example.org"): {ALICE, BOB, CAROL},
        ("--domain", "EXAMPLE.org", "--state", "delivered"): {ALICE},
        ("--domain", "ple.org"): set(),
        ("--sender", "carol@"): {CAROL},
        ("--reply", "UNKNOWN"): {CAROL},
        ("--recipient", "%"): set(),
        ("--larger-than", "1GB"): set(),
        ("--newer-than", "1s"): set(),
    }
    for arguments, paths in cases.items():
        found = bench.run("list", "--json", *arguments).lines
        assert {fact["forward_path"] for fact in found} == paths, arguments


# ---- classify


CLASSIFIED: dict[tuple[str, ...], dict[str, Any]] = {
    ("550 5.1.1 no",): {"verdict": "bounce", "scope": "recipient", "code": 550},
    ("550 5.1.1 no", "--stage", "BANNER"): {"verdict": "stop", "scope": "route"},
    ("450-a\\n450 4.2.2 full",): {"verdict": "retry", "rule": "basic-450"},
    ("452 4.2.2 full",): {"verdict": "retry-long", "enhanced": "4.2.2"},
    ("250 ok", "--stage", "dot"): {"verdict": "deliver"},
    ("nonsense",): {"verdict": "retry", "code": None, "enhanced": None},
    ("650 hm", "--stage", "Dot"): {"code": None},
}


@pytest.mark.parametrize(
    ("arguments", "facts"), CLASSIFIED.items(), ids=[" ".join(a) for a in CLASSIFIED]
)
def test_classify_tells_what_a_reply_would_mean(
    arguments: tuple[str, ...], facts: dict[str, Any]
) -> None:
    """One object with verdict, scope, rule, reason, code and enhanced code."""
    result = call("classify", *arguments, "--json")
    assert result.code == 0
    assert set(result.json) == {
        "verdict", "scope", "rule", "reason", "code", "enhanced",
    }  # fmt: skip
    assert result.json | facts == result.json
    legal = {"deliver", "retry", "retry-long", "bounce", "hold", "stop"}
    assert result.json["verdict"] in legal


GREYLISTING = """\
[[rule]]
id = "their-greylisting"
when = ['not today']
codes = [550]
permanent = "retry"
why = "their greylisting says 550"
"""


def test_classify_follows_the_operators_rules(tmp_path: Path) -> None:
    """From a file that was checked, by option or by configuration."""
    rules = tmp_path / "rules.toml"
    rules.write_text(GREYLISTING)
    (checked,) = call("classify", "--check", rules, "--json").lines
    assert checked["rules"] == ["their-greylisting"]
    reply = "550 5.1.1 Not today, thanks"
    (usual,) = call("classify", reply, "--json").lines
    (told,) = call("classify", reply, "--rules", rules, "--json").lines
    configured = tmp_path / "drainer.toml"
    configured.write_text(f"[primary]\nrules = '{rules}'\n")
    (also,) = call("classify", reply, "--config", configured, "--json").lines
    assert (usual["verdict"], told["verdict"]) == ("bounce", "retry")
    assert told == also
    assert told["reason"] == "their greylisting says 550"


@pytest.mark.parametrize("text", ["[[rule]]\nid = 'x'\n", "rule = 1\n", "[[rule\n"])
def test_a_wrong_file_of_rules_is_a_clear_error(tmp_path: Path, text: str) -> None:
    """It names the file; nothing is drained with it."""
    rules = tmp_path / "rules.toml"
    rules.write_text(text)
    assert_clear(call("classify", "--check", rules), 2, "rules.toml", "refusals")


def test_classify_refuses_an_unknown_stage() -> None:
    """And names the known ones."""
    assert_clear(call("classify", "250 ok", "--stage", "lunch"), 2, "lunch", "banner")
