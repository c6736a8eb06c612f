"""Hostile facts through the installed command: escaped, bounded, never a traceback."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.contract.test_damage import SHAPES, enlarge
from tests.contract.test_sources import KITS
from tests.support.command.installed import Drainer
from tests.support.command.installed import Result as Ended
from tests.support.command.runner import Result, call, environment
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Raw, Script
from tests.support.spools.exim_files import VARIABLES, header_file
from tests.support.spools.exim_files import place as place_exim
from tests.support.spools.postfix_files import place, queue_file, record
from tests.support.spools.queue_kits import (
    ENVELOPE,
    address,
    control_file,
    haraka_file,
    todo,
)

CONTROLS = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\x08\x00\u202egpj.exe\u2028[red]\\"
"""A title, an erased screen, an 8-bit sequence, a name that reads backwards, markup."""
LINE = CONTROLS.replace("\r", "").replace("\0", "")
"""The same for what a line end or NUL would end."""


def assert_tame(result: Result | Ended) -> None:
    """Check that nothing but printable text and line ends reaches the terminal."""
    for text in (result.stdout, result.stderr):
        wild = {char for char in text if not char.isprintable() and char != "\n"}
        assert not wild, text
    assert "Traceback" not in result.stderr


def on_a_terminal(drainer: Drainer, arguments: list[str]) -> bytes:
    """Run a command whose standard output and error are a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "drainer", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=environment(**drainer.environment, DRAINER_LEDGER__URL=str(drainer.ledger)),
    )
    os.close(theirs)
    seen = b""
    with suppress(OSError):  # EIO: the other end is closed
        while chunk := os.read(ours, 65536):
            seen += chunk
    os.close(ours)
    process.wait(timeout=60)
    return seen


def postfix(root: Path) -> None:
    """Lay out a queue whose every text is hostile."""
    names = ("client_name", "client_address", "helo_name", "sasl_username",
             "envelope_id", "encoding", "dsn_orig_rcpt", "log_client_name")  # fmt: skip
    hostile = [record("A", f"{name}={CONTROLS}") for name in names]
    subject = f"Message-ID: <{LINE}@x>\nSubject: {LINE}\n\n".encode()
    senders = {"A1": b"s@example.com", "A2": f'"{LINE}"@x'.encode(), "A3": b""}
    for name, sender in senders.items():
        envelope = [*hostile, record("R", f"{name}@example.org")]
        envelope += [record("D", f"{CONTROLS}@done.example"), record("V", "\x1b[")]
        if name == "A3":
            envelope.append(record("R", f"bad{CONTROLS}@example.org"))
        data = queue_file(sender=sender, envelope=envelope, text=subject)
        place(root, data, name, ("deferred", "A"))
    place(root, queue_file(envelope=[record("L", CONTROLS)]), "A4", ("deferred", "A"))
    place(root, queue_file(), LINE.replace("/", ""), ("deferred",))


def maildir(root: Path) -> None:
    """Lay out a Maildir with hostile names and fields."""
    fields = f"Return-Path: <s@example.com>\nX-Original-To: m{{}}@example.org\n{LINE}\n"
    (root / "new").mkdir(parents=True)
    for name in (LINE, f"x\n{LINE}", "plain:2,S"):
        (root / "new" / name).write_text(f"{fields}Message-ID: {LINE}\n\nbody\n")


def exim(root: Path) -> None:
    """Lay out a spool with hostile variables and recipients."""
    names = ("helo_name", "host_name", "auth_id", "dsn_envid", "host_address")
    hostile = [f"-{name} {LINE}".encode() for name in names]
    recipients = [b"e@example.org", f"{LINE}@example.org".encode()]
    header = header_file(variables=(*VARIABLES, *hostile), recipients=recipients)
    place_exim(root, header)


def sendmail(root: Path) -> None:
    """Lay out a queue with hostile macros; one message is in quarantine."""
    root.mkdir()
    macros = f"$_{LINE} [192.0.2.1]\n$s{LINE}\n${{auth_authen}}{LINE}\nZ{LINE}\n"
    text = control_file("Subject: x\n").replace("K0\n", f"K0\n{macros}")
    (root / "qf1").write_text(text, "utf-8")
    (root / "qf2").write_text(text.replace("K0\n", f"K0\nq{LINE}\n"), "utf-8")
    for name in ("df1", "df2"):
        (root / name).write_text("body\n")


def haraka(root: Path) -> None:
    """Lay out a queue with hostile JSON."""
    root.mkdir()
    values = todo(CONTROLS) | {"rcpt_to": [address(CONTROLS, "x"), address("h", "x")]}
    path = root / "1795453619413_1795453619413_0_99999999_tag_1_mx2"
    path.write_bytes(haraka_file(values, b"A: b\r\n\r\n"))


def opensmtpd(root: Path) -> None:
    """Lay out a spool with hostile lines; one is a report that is due."""
    folder = root / "queue" / "28" / "28"
    folder.mkdir(parents=True)
    (folder / "message").write_text("A: b\n\nbody\n")
    lines = [
        f"{line.partition(':')[0]}: {LINE}"
        if line.startswith(("helo", "hostname", "errorline", "sockaddr"))
        else line
        for line in ENVELOPE.splitlines()
    ]
    text = "\n".join([*lines, f"username: {LINE}", f"dsn-envid: {LINE}", ""])
    (folder / "1").write_text(text)
    (folder / "2").write_text(text.replace("type: mta", "type: bounce"))


SPOOLS: dict[str, Callable[[Path], None]] = {
    each.__name__: each
    for each in (postfix, maildir, exim, sendmail, haraka, opensmtpd)
}


@pytest.fixture
def urls(tmp_path: Path) -> list[str]:
    """Give the sources of all hostile spools."""
    found = []
    for name, lay_out in SPOOLS.items():
        lay_out(tmp_path / name)
        found.append(f"{name}:{tmp_path / name}")
    return found


def test_no_command_passes_on_what_a_terminal_obeys(
    tmp_path: Path, urls: list[str]
) -> None:
    """Every field of every message, every reply; as text, as JSON, while it runs."""
    drainer = Drainer(tmp_path / "ledger.db")
    drainer.environment["DRAINER_TELEMETRY__TRACES"] = "console"
    for command in ("inspect", "plan"):
        for more in ([], ["--json"]):
            assert_tame(call(command, *urls, *more))
    wild = LINE.encode()
    for script in (
        Script(rcpt=Raw(b"450 4.2.0 " + wild + b"\r\n")),
        Script(dot=Raw(b"550 5.7.1 " + wild + b"\r\n")),
    ):
        with PeerThread(script) as peer:
            assert_tame(drainer.drain(urls[0], peer.port, "--no-check"))
            to = f"127.0.0.1:{peer.port}"
            words = ["--to", to, "--no-check", "--rate", "unlimited"]
            assert_tame(drainer.run("drain", urls[1], *words))
            assert_tame(call("check", "--to", to))
    rows = call("list", "--json", "--ledger", drainer.ledger).lines
    assert {row["state"] for row in rows} >= {"held"}
    assert any("owned" in (row["reply"] or "") for row in rows)
    for more in ([], ["--json"]):
        asked = [["status"], ["list"]]
        for id_ in {row["id"] for row in rows}:
            asked += [["show", id_], ["why", id_]]
        for words in asked:
            assert_tame(call(*words, *more, "--ledger", drainer.ledger))


def test_a_terminal_gets_no_sequences_but_our_own(
    tmp_path: Path, urls: list[str]
) -> None:
    """On a terminal there are colours; titles and 8-bit sequences never."""
    drainer = Drainer(tmp_path / "ledger.db")
    with PeerThread(Script(rcpt=Raw(b"450 4 " + LINE.encode() + b"\r\n"))) as p:
        drain = ["drain", urls[0], "--to", f"127.0.0.1:{p.port}", "--no-check"]
        for arguments in (["inspect", *urls], drain, ["status"], ["list"]):
            seen = on_a_terminal(drainer, arguments)
            assert b"owned" in seen or arguments[0] == "drain"
            for wild in (b"\x1b]", b"\x1b[2J\xc2", b"\xc2\x9b", "\u202e".encode()):
                assert wild not in seen


@pytest.mark.parametrize("name", SHAPES)
def test_names_of_files_are_escaped(tmp_path: Path, name: str) -> None:
    """A file may be called anything but a slash: listed, as text and as JSON."""
    strange = [b"a\nb", b"\x1b]0;x\x07", b"\xff\xfe", "\u202e\x9b".encode()]
    for each in strange:
        KITS[name].write(tmp_path / "spool", each, "x")
    plain = call("inspect", f"{name}:{tmp_path / 'spool'}")
    facts = call("inspect", f"{name}:{tmp_path / 'spool'}", "--json")
    assert_tame(plain)
    assert_tame(facts)
    assert len(facts.lines) == len(strange)
    assert f"{len(strange)} messages" in plain.stdout


def test_the_folder_of_a_spool_may_be_called_anything(tmp_path: Path) -> None:
    """Neither UTF-8 nor printable: it is drained like any other."""
    folder = tmp_path / os.fsdecode(b"\xff\x1b[31m%20")
    maildir(folder)
    drainer = Drainer(tmp_path / "ledger.db")
    with PeerThread() as peer:
        result = drainer.drain(f"maildir:{folder}", peer.port, "--no-check")
        assert_tame(result)
        assert result.code == 0, result.stderr
    assert_tame(call("status", f"maildir:{folder}", "--ledger", drainer.ledger))


# ---- size


def test_endless_lines_are_inspected_in_little_memory(tmp_path: Path) -> None:
    """A line of 100 MB in each format, one command: less than 120 MB of memory."""
    urls = []
    for name in SHAPES:
        root = tmp_path / name
        KITS[name].write(root, b"2878E", "x")
        enlarge(name, root, 100_000_000)
        urls.append(f"{name}:{root}")
    command = [sys.executable, "-c", MEASURED, "inspect", "--json", *urls]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment()
    )
    facts = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(facts) == len(SHAPES)
    assert all(99_000_000 < fact["size"] < 101_000_000 for fact in facts)
    assert int(done.stderr.split()[-1]) < 120 * 1024


MEASURED = """
import atexit, sys
from pathlib import Path
from drainer.cli import main
def tell():
    text = Path("/proc/self/status").read_text()
    print(text.partition("VmHWM:")[2].split()[0], file=sys.stderr)
atexit.register(tell)
main()
"""


# ---- what an operator types


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a ledger that knows some messages."""
    folder = tmp_path_factory.mktemp("known")
    maildir(folder / "spool")
    drainer = Drainer(folder / "ledger.db")
    with PeerThread() as peer:
        drainer.drain(f"maildir:{folder / 'spool'}", peer.port, "--no-check")
    return drainer.ledger


@pytest.mark.parametrize(
    "arguments",
    [
        ["why", b"\xff"],
        ["status", "a" * 5000],
        ["show", b"\x1b[31m"],
        ["show", b"9" * 100_000],
        ["list", "--older-than", "900000d"],
        ["list", "--newer-than", "9" * 100_000 + "d"],
        ["list", "--larger-than", "99999999999999GB"],
        ["list", "--sender", b"\xff"],
        ["list", "--reply", b"9" * 100_000],
        ["list", "--domain", b"\xed\xa0\x80"],
        ["hold", b"\xff", "--reason", b"\xff"],
    ],
    ids=lambda words: " ".join(str(word)[:30] for word in words),
)
@pytest.mark.timeout(20)
def test_an_absurd_argument_is_refused_in_words(
    ledger: Path, arguments: list[str | bytes]
) -> None:
    """Exit 2, printable, and at once."""
    result = call(*map(os.fsdecode, arguments), "--ledger", ledger)
    assert_tame(result)
    assert result.code == 2
    assert "error:" in result.stderr


def test_any_line_gets_an_answer_from_classify(tmp_path: Path) -> None:
    """No text, no JSON, JSON without end: an answer or an error each."""
    lines = [b"550 5.1.1 \xff\xfe", b'{"reply": ' + b"[" * 100_000, b"", b"\0",
             b'{"reply": "\\ud800"}', b"[]", b"2" * 100_000]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "drainer", "classify", "--json"],
        input=b"\n".join(lines) + b"\n",
        capture_output=True,
        check=False,
        env=environment(PYTHONIOENCODING="utf-8:strict"),
        cwd=tmp_path,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(lines)
    assert answers[0]["verdict"] == "bounce"
    assert b"Traceback" not in done.stderr


def test_a_terminal_without_utf_8_gets_an_escape(tmp_path: Path) -> None:
    """What an encoding lacks is written in ASCII, instead of ending the command."""
    text = "Return-Path: <s@ex.org>\nX-Original-To: š@ex.org\n\nx\n"
    (tmp_path / "spool" / "new").mkdir(parents=True)
    (tmp_path / "spool" / "new" / "1").write_text(text, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "drainer", "inspect", tmp_path / "spool"],
        capture_output=True,
        check=True,
        env=environment(PYTHONIOENCODING="latin-1"),
    )
    assert rb"\u0161@ex.org" in done.stdout
