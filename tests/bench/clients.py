"""The clients that `make bench` compares: each sends the same messages to one port.

Each function returns the seconds it took. `place` is an empty folder of its own.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.flush import copy_queue, wait_removed
from tests.support.command.installed import Drainer, drain_arguments
from tests.support.mta.postfix import PrivatePostfix, program

CONNECTIONS = 20


def flush_to(
    place: Path, spool: Path, port: int, messages: int, connections: int = CONNECTIONS
) -> float:
    """Flush a copy of a Postfix queue with `postqueue -f`, until it is empty."""
    parameters = {
        "relay_domains": "example.org",
        "relayhost": f"[127.0.0.1]:{port}",
        "smtp_destination_concurrency_limit": str(connections),
        "initial_destination_concurrency": str(min(5, connections)),
    }
    server = PrivatePostfix(place, hostname="backup.example", parameters=parameters)
    for queue in ("deferred", "defer"):
        shutil.rmtree(server.queue_dir / queue)
        copy_queue(spool / queue, server.queue_dir / queue)
    # What is due later than the measurement is delivered by the flush alone.
    later = time.time() + 7200
    for path in server.queue_files():
        os.utime(path, (later, later))
    with server:
        begun = time.monotonic()
        server.flush()
        wait_removed(server, messages)
        return time.monotonic() - begun


def drain_to(
    place: Path, spool: Path, port: int, messages: int, connections: int = CONNECTIONS
) -> float:
    """Drain a copy of a Postfix queue, from the start of the process to its end."""
    copy_queue(spool, place / "copy")
    settings = {
        "DRAINER_PRIMARY__HELO": "backup.example",
        "DRAINER_TELEMETRY__TRACES": f"file:{place / 'traces.jsonl'}",
    }
    options = ("--connections", connections, "--no-check")
    source = f"postfix:{place / 'copy'}"
    arguments = drain_arguments(source, port, *options)
    begun = time.monotonic()
    process = Drainer(place / "ledger.db", settings).start(*arguments)
    stdout, stderr = process.communicate()
    seconds = time.monotonic() - begun
    assert process.returncode == 0, stderr
    assert json.loads(stdout.splitlines()[-1])["recipients"]["delivered"] == messages
    return seconds


def generate_to(port: int, messages: int, size: int) -> float:
    """Send as many messages of that size with Postfix's `smtp-source`, from memory.

    It keeps no record and reads no file: the ceiling.
    """
    command = [
        program("smtp-source"), "-d", "-s", str(CONNECTIONS), "-m", str(messages),
        "-l", str(size), "-f", "sender@example.com", "-t", "user@example.org",
        f"127.0.0.1:{port}",
    ]  # fmt: skip
    begun = time.monotonic()
    subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
    return time.monotonic() - begun


def script_to(port: int, messages: int, size: int) -> float:
    """Send them with a plain loop over aiosmtplib, as a script would, from memory."""
    module = "tests.bench.plain_script"
    numbers = [str(each) for each in (port, messages, size, CONNECTIONS)]
    begun = time.monotonic()
    subprocess.run([sys.executable, "-m", module, *numbers], check=True)
    return time.monotonic() - begun
