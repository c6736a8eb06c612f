"""What tracing costs: processor time for a delivered message, in all processes."""

import multiprocessing
import os
import shutil
import time
from pathlib import Path
from typing import Any, Final

from drainer.runtime.process import tune_gc
from drainer.telemetry import ExportOrder
from drainer.telemetry.worker import _trace_projector
from tests.support.command.installed import Drainer, drain_arguments, write_maildir
from tests.support.smtp_peer.peer import PeerThread
from tests.support.web.collector import Answer, Collector, Received

LIMITS: Final = {"file": 0.08, "otlp": 0.15}
"""Milliseconds of processor time a message, on a machine that does nothing else."""


def run(folder: Path, *, messages: int, rounds: int) -> None:
    """Drain with and without traces in turn, project a ledger alone; print the cost."""
    write_maildir(folder / "spool", messages)
    context = multiprocessing.get_context("spawn")
    ports = context.Queue()
    collector = context.Process(target=_collect, args=(ports,), daemon=True)
    collector.start()
    endpoint = f"http://127.0.0.1:{ports.get()}/v1/traces"
    drains: dict[str, list[float]] = {name: [] for name in ("off", *LIMITS)}
    alone: dict[str, list[float]] = {name: [] for name in LIMITS}
    for _ in range(rounds):
        for name, costs in drains.items():
            costs.append(_drain(folder, name, endpoint) * 1000 / messages)
        for name, costs in alone.items():
            costs.append(_project(folder, name, endpoint) * 1000 / messages)
    collector.terminate()
    collector.join()
    least = {name: min(costs) for name, costs in drains.items()}
    print("CPU ms a message, the least of each")
    print("traces to  drain, all processes  more than off  export alone  at most")
    print(f"off        {least['off']:20.3f}")
    for name, limit in LIMITS.items():
        more, own = least[name] - least["off"], min(alone[name])
        print(f"{name:9}  {least[name]:20.3f}  {more:13.3f}  {own:12.3f}  {limit:7.2f}")


def _traces(folder: Path, name: str) -> str:
    """Return the value of ``[telemetry] traces``."""
    return f"file:{folder}/traces.jsonl" if name == "file" else name


def _drain(folder: Path, name: str, endpoint: str) -> float:
    """Drain to a fresh ledger; return the processor time of all its processes."""
    for old in folder.glob("ledger.db*"):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    environment = {
        "DRAINER_TELEMETRY__TRACES": _traces(folder, name),
        "DRAINER_TELEMETRY__ENDPOINT": endpoint,
    }
    drainer = Drainer(folder / "ledger.db", environment)
    with PeerThread() as peer:
        spool = shutil.copytree(folder / "spool", folder / "copy")
        command = drain_arguments(spool, peer.port, "--no-check", "--quiet")
        process = drainer.start(*command)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    shutil.rmtree(spool)
    return usage.ru_utime + usage.ru_stime


def _project(folder: Path, name: str, endpoint: str) -> float:
    """Project everything; return the seconds of processor time that it took."""
    traces = _traces(folder, name)
    order = ExportOrder(
        ledger=f"sqlite:///{folder}/ledger.db",
        locks=str(folder),
        traces=traces,
        logs="off",
        endpoint=endpoint,
        addresses="hashed",
    )
    projector = _trace_projector(order, f"alone {name} {time.monotonic()}")
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
