"""How the rate depends on message size, connections and the size of the queue.

`postqueue -f` and `drainer drain` send the same queue files to the same sink. For the
ceiling there are `smtp-source`, and a plain loop over aiosmtplib: they read no queue.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from tests.bench.clients import (
    CONNECTIONS,
    drain_to,
    flush_to,
    generate_to,
    script_to,
)
from tests.bench.flush import SINK, SIZE_BYTES, make_queue
from tests.bench.machine import Noise
from tests.support.mta.postfix import instance_directory
from tests.support.mta.roles import SmtpSink

SIZES = {1024: 1.0, 4096: 1.0, 32 * 1024: 0.5, 256 * 1024: 0.1}
"""Bytes of a message, and which part of the messages is sent."""
CONNECTION_COUNTS = (1, 5, 20, 50)
QUEUES = (0.2, 1.0, 4.0)
"""Parts of the messages."""


def run(*, messages: int) -> None:
    """Print a table of clients, and one per curve."""
    with instance_directory() as folder:
        print(f"before it: {Noise.now(folder)}")
        spool = make_queue(folder, messages)
        _peers(spool, messages)
        _curve("connections", ((n, spool, messages, n) for n in CONNECTION_COUNTS))
    _curve(
        "bytes", _queues({size: (size, part) for size, part in SIZES.items()}, messages)
    )
    counts = {round(messages * part): (SIZE_BYTES, part) for part in QUEUES}
    _curve("messages", _queues(counts, messages))


def _queues(
    points: dict[int, tuple[int, float]], messages: int
) -> Iterable[tuple[int, Path, int, int]]:
    """Make a queue for each point of a curve, while it is measured."""
    for label, (size, part) in points.items():
        with instance_directory() as folder:
            count = round(messages * part)
            yield label, make_queue(folder, count, size), count, CONNECTIONS


def _peers(spool: Path, messages: int) -> None:
    clients: dict[str, Callable[[Path, int], float]] = {
        "smtp-source": lambda _, port: generate_to(port, messages, SIZE_BYTES),
        "aiosmtplib loop": lambda _, port: script_to(port, messages, SIZE_BYTES),
        "drainer drain": lambda place, port: drain_to(place, spool, port, messages),
        "postqueue -f": lambda place, port: flush_to(place, spool, port, messages),
    }
    print(
        f"client           messages/s  ({SIZE_BYTES} bytes, {CONNECTIONS} connections)"
    )
    for name, client in clients.items():
        with instance_directory() as place, SmtpSink(*SINK) as sink:
            rate = messages / client(place, sink.port)
        print(f"{name:15}  {rate:10.0f}", flush=True)


def _curve(what: str, points: Iterable[tuple[int, Path, int, int]]) -> None:
    """Measure each point: its label, its queue, its messages, its connections."""
    print(f"{what:>11}  postqueue -f  drainer  ratio")
    for label, spool, messages, connections in points:
        rates = []
        for client in (flush_to, drain_to):
            with instance_directory() as place, SmtpSink(*SINK) as sink:
                seconds = client(place, spool, sink.port, messages, connections)
            rates.append(messages / seconds)
        postfix, ours = rates
        print(
            f"{label:11}  {postfix:12.0f}  {ours:7.0f}  {ours / postfix:5.2f}",
            flush=True,
        )
