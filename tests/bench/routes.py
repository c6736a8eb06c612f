"""What a second route costs: the same mail by one route, and by two at once.

Each turn drains a fresh copy of one Maildir; the turns alternate. Both ways have the
same connections in total.
"""

import json
import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.support.command.installed import Drainer, maildir_message
from tests.support.command.runner import toml
from tests.support.mta.roles import SmtpSink

CONNECTIONS = 20
LIMIT = 1.05
"""What a message may cost with two routes, if it costs 1 with one."""
SINK = ("-c", "-h", "primary.example")
DOMAINS = ("a.example", "b.example")
TURNS = (1, 2, 2, 1)


def run(folder: Path, *, messages: int, rounds: int = 1) -> None:
    """Measure in turns; print a line for each number of routes, and the ratio."""
    for name in ("tmp", "new", "cur"):
        (folder / "spool" / name).mkdir(parents=True)
    for n in range(messages):
        path = folder / "spool" / "new" / f"1795453785.M{n:07}P1.backup"
        path.write_bytes(maildir_message(n, f"user{n}@{DOMAINS[n % 2]}", 800))
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for routes in TURNS * rounds:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            spool = shutil.copytree(folder / "spool", Path(place, "spool"))
            found[routes].append(_measure(Path(place), spool, routes, messages))
    print("routes  ms a message  CPU ms a message")
    cost = {}
    for routes, turns in found.items():
        wall, cpu = (
            sum(each) * 1000 / messages / len(turns)
            for each in zip(*turns, strict=True)
        )
        cost[routes] = cpu
        print(f"{routes:6}  {wall:12.3f}  {cpu:16.3f}")
    ratio = cost[2] / cost[1]
    print(f"a message by two routes costs {ratio:.3f} of one; at most {LIMIT}")


def _measure(
    place: Path, spool: Path, routes: int, messages: int
) -> tuple[float, float]:
    """Drain once; return the seconds, and those of processor time."""
    with ExitStack() as opened:
        ports = [opened.enter_context(SmtpSink(*SINK)).port for _ in range(routes)]
        each = CONNECTIONS // routes
        first, *others = (
            {"host": "127.0.0.1", "port": port, "connections": each} for port in ports
        )
        config = place / "drainer.toml"
        text = toml({"primary": first, "throttle": {"rate": "unlimited", "ramp": "0s"}})
        for keys in others:
            lines = (f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
            text += f'\n[[routes]]\ndomains = ["{DOMAINS[1]}"]\n{"".join(lines)}'
        config.write_text(text, "utf-8")
        command = Drainer(
            place / "ledger.db", {"DRAINER_PRIMARY__HELO": "backup.example"}
        )
        begun = time.monotonic()
        options = ("--config", config, "--no-check", "--json")
        process = command.start("drain", f"maildir:{spool}", *options)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert json.loads(stdout.splitlines()[-1])["recipients"]["delivered"] == messages
    return seconds, usage.ru_utime + usage.ru_stime
