"""A primary that is far away: `postqueue -f` and `drainer drain` over a round trip.

The primary is a real Postfix that accepts everything and discards it. Both clients use
20 connections, over the same relay, on the same queue files.
"""

import json
import os
import shutil
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.delay import distance
from tests.bench.flush import copy_queue, make_queue, wait_removed
from tests.support.command.installed import Drainer, drain_arguments
from tests.support.mta.postfix import PrivatePostfix, instance_directory

CONNECTIONS = 20
ROUND_TRIPS = (1, 10, 50, 150)
"""Milliseconds."""


def run(folder: Path, *, messages: int, rounds: int) -> None:
    """Print a line per round trip."""
    spool = make_queue(folder, messages)
    print(f"{messages} messages, {CONNECTIONS} connections, messages per second")
    print("round trip  postqueue -f  drainer  ratio")
    for milliseconds in ROUND_TRIPS:
        with (
            instance_directory() as place,
            _primary(place) as server,
            distance(server.port, milliseconds) as port,
        ):
            line = _compare(spool, port, messages, rounds)
        print(f"{milliseconds:7} ms  {line}", flush=True)


def _primary(place: Path) -> PrivatePostfix:
    parameters = {
        "relay_domains": "example.org",
        "relay_transport": "discard:",
        "smtpd_client_connection_count_limit": "0",
        "default_process_limit": "100",
    }
    return PrivatePostfix(place, hostname="primary.example", parameters=parameters)


def _compare(spool: Path, port: int, messages: int, rounds: int) -> str:
    found: dict[str, list[float]] = {"postfix": [], "drainer": []}
    for _ in range(rounds):
        for who, measure in (("postfix", _postfix), ("drainer", _drainer)):
            with instance_directory() as place:
                found[who].append(measure(place, spool, port, messages))
    postfix, drainer = (messages / statistics.median(found[who]) for who in found)
    return f"{postfix:12.0f}  {drainer:7.0f}  {drainer / postfix:5.2f}"


def _postfix(place: Path, spool: Path, port: int, messages: int) -> float:
    """Return the seconds of a flush, until the queue is empty."""
    relay = {"relay_domains": "example.org", "relayhost": f"[127.0.0.1]:{port}"}
    server = PrivatePostfix(place, hostname="backup.example", parameters=relay)
    for queue in ("deferred", "defer"):
        shutil.rmtree(server.queue_dir / queue)
        copy_queue(spool / queue, server.queue_dir / queue)
    later = time.time() + 7200
    for path in server.queue_files():
        os.utime(path, (later, later))
    with server:
        begun = time.monotonic()
        server.flush()
        wait_removed(server, messages)
        return time.monotonic() - begun


def _drainer(place: Path, spool: Path, port: int, messages: int) -> float:
    """Return the seconds of a drain, from the start of the process to its end."""
    copy_queue(spool, place / "copy")
    settings = {
        "DRAINER_PRIMARY__HELO": "backup.example",
        "DRAINER_TELEMETRY__TRACES": f"file:{place / 'traces.jsonl'}",
    }
    options = ("--connections", CONNECTIONS, "--no-check")
    arguments: Sequence[object] = drain_arguments(
        f"postfix:{place / 'copy'}", port, *options
    )
    begun = time.monotonic()
    process = Drainer(place / "ledger.db", settings).start(*arguments)
    stdout, stderr = process.communicate()
    seconds = time.monotonic() - begun
    assert process.returncode == 0, stderr
    assert json.loads(stdout.splitlines()[-1])["recipients"]["delivered"] == messages
    return seconds
