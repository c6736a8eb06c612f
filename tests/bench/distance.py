"""A primary that is far away: `postqueue -f` and `drainer drain` over a round trip.

The primary is a real Postfix that accepts everything and discards it. Both clients use
20 connections, over the same relay, on the same queue files. Two more clients send as
many messages from memory, and show what any client can reach (tests.bench.pipelined).
"""

import statistics
from pathlib import Path

from tests.bench import pipelined
from tests.bench.clients import CONNECTIONS, drain_to, flush_to
from tests.bench.delay import distance
from tests.bench.flush import SIZE_BYTES, make_queue
from tests.support.mta.postfix import PrivatePostfix, instance_directory

ROUND_TRIPS = (1, 10, 50, 150)
"""Milliseconds."""


def run(folder: Path, *, messages: int, rounds: int) -> None:
    """Print a line per round trip."""
    spool = make_queue(folder, messages)
    print(f"{messages} messages, {CONNECTIONS} connections, messages per second")
    print("round trip  postqueue -f  drainer  ratio  from memory: DATA  BDAT")
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
    found: dict[str, list[float]] = {
        "postfix": [],
        "drainer": [],
        "data": [],
        "bdat": [],
    }
    for _ in range(rounds):
        for who, measure in (("postfix", flush_to), ("drainer", drain_to)):
            with instance_directory() as place:
                found[who].append(measure(place, spool, port, messages))
        for who, client in (("data", pipelined.data), ("bdat", pipelined.bdat)):
            found[who].append(
                pipelined.seconds(client, port, messages, SIZE_BYTES, CONNECTIONS)
            )
    rates = {who: messages / statistics.median(times) for who, times in found.items()}
    postfix, drainer = rates["postfix"], rates["drainer"]
    return (
        f"{postfix:12.0f}  {drainer:7.0f}  {drainer / postfix:5.2f}"
        f"  {rates['data']:17.0f}  {rates['bdat']:4.0f}"
    )
