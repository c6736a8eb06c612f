"""A process that has parsed a hostile message may say anything: nothing of it executes.

Real processes, at the ends of real sockets, that say what they should not.
"""

import asyncio
import itertools
import os
import pickle
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import pytest

from drainer.bounce.evidence.client import EvidenceWorker
from drainer.bounce.evidence.request import DnsServers, EvidenceSettings
from drainer.bounce.evidence.tasks import (
    MAX_ANSWER_BYTES,
    EvidenceResult,
    EvidenceTask,
    WorkerRequest,
)
from drainer.bounce.evidence.worker import EvidenceServer
from drainer.mail.envelope import Recipient
from drainer.policy.bounce.evidence import judge
from drainer.policy.bounce.facts import (
    Reachability,
    SenderFacts,
    Strength,
    TrustSettings,
)
from drainer.runtime.frames import HEAD, read
from drainer.runtime.frames import frame as long
from drainer.runtime.ipc import frame_value, value_reader
from drainer.runtime.workers import WorkerProcess, start
from tests.integration.bounce.evidence.test_gather import (
    children_of,
    process_of,
    question,
    until,
)
from tests.support.dns.zones import TIMEOUT, serving, zone_of


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        """Make this file."""
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        """Say what unpickling does."""
        return os.mkdir, (str(self.path),)


def result(value: bytes, id_: object = 1) -> bytes:
    """Return an answer to the first task."""
    return long(msgspec.msgpack.encode({"id": id_, "value": value, "problem": ""}))


def packed(**facts: object) -> bytes:
    """Return facts as a process that ignores their types would."""
    return msgspec.msgpack.encode(facts)


#: What the evidence process says to a drain.
SAID: Final[dict[str, bytes]] = {
    "nothing": b"",
    "a part of a length": b"\0\0",
    "a length and nothing": HEAD.pack(100),
    "four gigabytes": HEAD.pack(2**32 - 1) + b"x" * 10_000,
    "more than allowed": HEAD.pack(MAX_ANSWER_BYTES + 4096) + b"x" * 10_000,
    "an empty value": HEAD.pack(0),
    "garbage": long(b"\xc1\xff\xfe"),
    "a text": long(msgspec.msgpack.encode("hello")),
    "another type of id": result(b"", "1"),
    "a value that is a text": long(msgspec.msgpack.encode({"id": 1, "value": "x"})),
    "deeply nested": long(b"\x91" * 30_000 + b"\xc0"),
    "deeply nested facts": result(b"\x81\xa9addressee" + b"\x91" * 30_000),
    "a map of four billion": long(b"\xdf\xff\xff\xff\xff"),
    "no facts": result(b""),
    "facts of another type": result(packed(reach="yes", spf="pass")),
    "an unknown strength": result(
        packed(signatures=[{"domain": "a", "organisation": "a", "state": "sure"}])
    ),
    "a number for a domain": result(packed(domain=17)),
    "a text that is no Unicode": result(b"\x81\xa6domain\xa2\xff\xfe"),
    "an extension": result(b"\x81\xa6domain\xc7\x04\x2aabcd"),
}


Start = Callable[[], WorkerProcess]


def speaking(said: bytes) -> Start:
    """Return what starts a process that reads its order and says this."""
    code = (
        "import socket, sys\n"
        "link = socket.socket(fileno=0)\n"
        "link.recv(1 << 16)\n"
        "link.sendall(bytes.fromhex(sys.argv[1]))\n"
        "link.shutdown(socket.SHUT_WR)\n"
        "while link.recv(1 << 16): pass\n"
    )
    command = (sys.executable, "-I", "-S", "-c", code, said.hex())

    def begin() -> WorkerProcess:
        ours, theirs = socket.socketpair()
        with theirs:
            link = (os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)
            pid = os.posix_spawn(
                sys.executable, command, os.environ, file_actions=(link,)
            )
        return WorkerProcess(pid, ours, os.open(os.devnull, os.O_RDONLY))

    return begin


def ask(*starts: Start) -> list[SenderFacts]:
    """Return the facts of as many messages, by these processes; the last one stays."""
    turns = itertools.chain(starts, itertools.repeat(starts[-1]))

    def begin() -> WorkerProcess:
        return next(turns)()

    async def run() -> list[SenderFacts]:
        async with EvidenceWorker(EvidenceSettings(), start_worker=begin) as checks:
            return [await checks.facts(question(sender="")) for _ in starts]

    return asyncio.run(run())


def is_nothing(facts: SenderFacts) -> bool:
    """Whether these facts prove nothing, and say why."""
    evidence = judge(facts, Recipient(forward_path="x@example.org"), TrustSettings())
    nothing = (
        evidence.strength is not Strength.PROVEN and facts.reach is Reachability.LATER
    )
    return nothing and "the checks failed" in evidence.words["V4"]


@pytest.mark.parametrize("name", SAID)
def test_what_the_evidence_process_may_not_say_is_no_evidence(name: str) -> None:
    """The message has none."""
    (failed,) = ask(speaking(SAID[name]))
    assert is_nothing(failed), failed


def test_the_next_message_has_a_new_process() -> None:
    """Which answers well. The first message has failed with two processes."""
    bad = speaking(SAID["garbage"])
    failed, good = ask(bad, bad, start)[:2]
    assert is_nothing(failed), failed
    assert good.reach is Reachability.NXDOMAIN


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("inside", [False, True])
def test_a_pickle_does_not_execute(
    tmp_path: Path,
    protocol: int,
    inside: bool,  # noqa: FBT001
) -> None:
    """Neither in the place of an answer, nor in the place of the facts."""
    data = pickle.dumps(Bomb(tmp_path / "made"), protocol=protocol)
    (facts,) = ask(speaking(result(data) if inside else long(data)))
    assert is_nothing(facts)
    assert list(tmp_path.iterdir()) == []


# ---- the process of one message


class Hostile(EvidenceServer):
    """An evidence process whose messages have taken over the processes they are in."""

    said = b""

    def _fork(self, task: EvidenceTask) -> tuple[socket.socket, int]:
        del task
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            os.write(theirs.fileno(), self.said)
            os._exit(0)
        theirs.close()
        return ours, pid


async def answer_of(said: bytes) -> EvidenceResult:
    """Return what the drain hears when the process of a message says this."""
    here, there = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=here)
    theirs, out = await asyncio.open_connection(sock=there)
    evidence = Hostile(
        EvidenceSettings(servers=DnsServers(addresses=("127.0.0.1",))), out
    )
    evidence.said = said
    serving_it = asyncio.create_task(evidence.serve(theirs))
    task = EvidenceTask(
        id=1, dns_seconds=1, compute_seconds=5, question=question(sender="")
    )
    writer.write(frame_value(task))
    try:
        return await read(reader, value_reader(EvidenceResult, MAX_ANSWER_BYTES))
    finally:
        writer.close()
        await serving_it
        out.close()


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(HEAD.pack(2**32 - 1) + b"x", id="four gigabytes"),
        pytest.param(HEAD.pack(50) + b"x", id="a part"),
        pytest.param(long(pickle.dumps(Bomb(Path("/nonexistent/x")))), id="a pickle"),
        pytest.param(
            frame_value(WorkerRequest(name="a.example", kind="X")) * 3, id="no type"
        ),
        pytest.param(
            frame_value(WorkerRequest(name="\0" * 300, kind="TXT", seconds=-1)),
            id="nul",
        ),
        pytest.param(long(b"\xc0"), id="null"),
        pytest.param(frame_value({"name": 5}), id="a number for a name"),
    ],
)
def test_what_the_process_of_a_message_may_not_say_is_its_failure(said: bytes) -> None:
    """The evidence process goes on; the drain hears that the checks failed."""
    heard = asyncio.run(answer_of(said))
    assert (heard.problem, heard.value) == ("the checks failed", b"")


def test_what_it_found_is_handed_on_unread() -> None:
    """The drain alone knows which type it must have."""
    said = frame_value(WorkerRequest(value=b"\xc1 anything"))
    assert asyncio.run(answer_of(said)).value == b"\xc1 anything"


def test_a_message_that_kills_its_process_harms_no_other() -> None:
    """Those looked at beside it are answered by the same evidence process."""
    zone = zone_of(
        {"silent.example": [(TIMEOUT, "")], "a.example": [("A", "192.0.2.9")]}
    )

    async def run() -> tuple[SenderFacts, list[SenderFacts], bool]:
        async with EvidenceWorker(EvidenceSettings(servers=servers)) as checks:
            await checks.facts(question(sender=""))
            process = process_of(checks)
            beside = asyncio.create_task(
                checks.facts(question(sender="x@silent.example"))
            )
            await asyncio.to_thread(until, lambda: children_of(process.pid))
            (victim,) = children_of(process.pid)
            os.kill(victim, signal.SIGKILL)
            names = [question(sender="bob@a.example") for _ in range(5)]
            others = await asyncio.gather(*map(checks.facts, names))
            return await beside, others, process_of(checks) is process

    with serving(zone) as servers:
        killed, others, is_same = asyncio.run(run())
    assert is_nothing(killed)
    assert {facts.reach for facts in others} == {Reachability.YES}
    assert is_same


def descriptors_of(pid: int) -> list[str]:
    """Return the open descriptors of a process."""
    return sorted(path.name for path in Path(f"/proc/{pid}/fd").iterdir())


def test_a_message_has_no_other_way_out() -> None:
    """Its process holds its link, a place for errors, and nothing else."""
    zone = zone_of({"silent.example": [(TIMEOUT, "")]})

    async def run() -> list[str]:
        async with EvidenceWorker(EvidenceSettings(servers=servers)) as checks:
            task = asyncio.create_task(
                checks.facts(question(sender="x@silent.example"))
            )
            await asyncio.to_thread(until, lambda: zone.asked)
            (child,) = children_of(process_of(checks).pid)
            found = descriptors_of(child)
            task.cancel()
            return found

    with serving(zone) as servers:
        assert asyncio.run(run()) == ["0", "1", "2"]
