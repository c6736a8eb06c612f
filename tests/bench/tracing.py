"""What tracing costs: processor time of the export process for a delivered message."""

import multiprocessing
import time
from pathlib import Path
from typing import Any, Final

from drainer.runtime.process import tune_gc
from drainer.telemetry import ExportOrder
from drainer.telemetry.worker import _trace_projector
from tests.support.command.installed import Drainer, write_maildir
from tests.support.smtp_peer.peer import PeerThread
from tests.support.web.collector import Answer, Collector, Received

LIMITS: Final = {"file": 0.08, "otlp": 0.15}
"""Milliseconds of processor time a message, on a machine that does nothing else."""


def run(folder: Path, *, messages: int) -> None:
    """Drain a spool, project its ledger both ways, and print the cost."""
    write_maildir(folder / "spool", messages)
    drainer = Drainer(folder / "ledger.db")
    with PeerThread() as peer:
        result = drainer.drain(folder / "spool", peer.port, "--no-check")
        assert result.code == 0, result.stderr
    context = multiprocessing.get_context("spawn")
    ports = context.Queue()
    collector = context.Process(target=_collect, args=(ports,), daemon=True)
    collector.start()
    endpoint = f"http://127.0.0.1:{ports.get()}/v1/traces"
    print("traces to  CPU ms a message  at most")
    for name, traces in {"file": f"file:{folder}/traces.jsonl", "otlp": "otlp"}.items():
        seconds = _project(folder, traces, endpoint)
        cost = seconds * 1000 / messages
        print(f"{name:9}  {cost:16.3f}  {LIMITS[name]:7.2f}")
    collector.terminate()
    collector.join()


def _project(folder: Path, traces: str, endpoint: str) -> float:
    """Project everything; return the seconds of processor time that it took."""
    order = ExportOrder(
        ledger=f"sqlite:///{folder}/ledger.db",
        locks=str(folder),
        traces=traces,
        logs="off",
        endpoint=endpoint,
        addresses="hashed",
    )
    projector = _trace_projector(order, traces)
    projector.hurry()
    tune_gc()  # as the export process does
    begun = time.process_time()
    while projector.step():
        pass
    spent = time.process_time() - begun
    projector.close()
    return spent


class _Sink(Collector):
    """Takes everything unread, so that it costs the machine little."""

    def take(self, path: str, headers: Any, body: bytes) -> Answer:
        """Keep nothing."""
        del path, headers, body
        return Answer()


def _collect(ports: Any) -> None:
    """Serve until the process is ended."""
    with _Sink(0, _unread) as collector:
        ports.put(collector.port)
        time.sleep(3600)


def _unread(_: Received) -> Answer:
    return Answer()
