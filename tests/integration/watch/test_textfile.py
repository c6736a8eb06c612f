"""Metrics in a file: the same table as /metrics, whole at any time, for every user."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from drainer.watch.metrics import LEDGER_METRICS, METRICS
from tests.support.command.runner import Bench
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Script, per_recipient

GONE = "gone@example.org"


@pytest.fixture
def drained(tmp_path: Path) -> Bench:
    """Drain three messages, of which one is refused, with a textfile configured."""
    with PeerThread(Script(rcpt=per_recipient({GONE: "550 5.1.1 unknown"}))) as peer:
        bench = Bench(tmp_path, peer.port)
        for path in ("a@example.org", "b@example.org", GONE):
            bench.add(path)
        bench.configure(telemetry={"textfile": str(tmp_path / "drainer.prom")})
        assert bench.drain().code == 5
    return bench


def values(text: str) -> dict[tuple[str, ...], float]:
    """Return every sample by its name and labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def test_the_end_of_a_drain_writes_it(drained: Bench) -> None:
    """Readable for the node exporter, with the sums of the ledger; no part is left."""
    path = drained.root / "drainer.prom"
    found = values(path.read_text())
    route = f"127.0.0.1:{drained.port}"
    assert found["drainer_recipients", route, "delivered"] == 2
    assert found["drainer_recipients", route, "bounce-pending"] == 1
    assert found["drainer_spooled_recipients",] == 3
    assert found["drainer_balanced",] == 1
    assert found["drainer_last_run_exit",] == 5
    assert found["drainer_breakers", route, "route", "closed"] == 1
    assert path.stat().st_mode & 0o777 == 0o644
    assert [each for each in drained.root.iterdir() if each.name.startswith(".")] == []


def test_status_prints_the_same(drained: Bench) -> None:
    """On standard output, or into a file, which it replaces."""
    printed = drained.run("status", "--prometheus")
    assert printed.code == 0
    assert values(printed.stdout) == values((drained.root / "drainer.prom").read_text())
    other = drained.root / "other.prom"
    other.write_text("old")
    assert drained.run("status", "--prometheus", "--output", str(other)).code == 0
    assert values(other.read_text()) == values(printed.stdout)


def test_every_name_is_that_of_the_table(drained: Bench) -> None:
    """A part of what /metrics serves."""
    names = {name for name, *_ in values(drained.run("status", "--prometheus").stdout)}
    assert names <= {metric.name for metric in LEDGER_METRICS}
    assert set(LEDGER_METRICS) <= set(METRICS)


def test_a_ledger_that_cannot_be_read_is_a_metric(tmp_path: Path) -> None:
    """An alert depends on it, so that the file is written all the same."""
    bench = Bench(tmp_path, 1)
    printed = bench.run("status", "--prometheus")
    assert printed.code == 0
    assert values(printed.stdout)["drainer_ledger_readable",] == 0


@pytest.mark.parametrize(
    "arguments", [["--output", "x.prom"], ["--prometheus", "--json"]]
)
def test_options_that_do_not_go_together(tmp_path: Path, arguments: list[str]) -> None:
    """Nothing is written."""
    refused = Bench(tmp_path, 1).run("status", *arguments)
    assert refused.code == 2
    assert "--prometheus --output" in refused.stderr


def test_a_folder_that_is_absent_is_named(drained: Bench) -> None:
    """By the command as an error; after a drain as a warning."""
    missing = str(drained.root / "absent" / "x.prom")
    refused = drained.run("status", "--prometheus", "--output", missing)
    assert refused.code == 2
    assert missing in refused.stderr
    drained.configure(telemetry={"textfile": missing})
    assert missing in drained.drain().stderr


def test_the_file_has_the_name_that_is_read(tmp_path: Path) -> None:
    """The node exporter ignores every other name."""
    bench = Bench(tmp_path, 1)
    bench.configure(telemetry={"textfile": "metrics.txt"})
    refused = bench.run("config")
    assert refused.code == 2
    assert ".prom" in refused.stderr
