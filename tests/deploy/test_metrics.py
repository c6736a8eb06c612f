"""Alerts, dashboard and collector know the metrics and spans that drainer has."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from drainer.config.telemetry import TelemetrySection
from tests.deploy import DEPLOY, DOCS
from tests.deploy.programs import ask
from tests.test_docs import slug

ALERTS: Final = DEPLOY / "prometheus" / "alerts.yaml"
DASHBOARD: Final = DEPLOY / "grafana" / "drainer.json"
COLLECTOR: Final = DEPLOY / "otel" / "collector.yaml"
_METRIC: Final = re.compile(r"\bdrainer_[a-z_]+")

#: alert -> (what is wrong, the same when it is not, minutes until it fires)
ALARMS: Final[dict[str, tuple[tuple[str, str], tuple[str, str], int]]] = {
    name: ((series, bad), (series, good), minutes)
    for name, series, bad, good, minutes in (
        ("DrainerDown", "up", "0", "1", 5),
        ("DrainerNotBalanced", "drainer_balanced", "0", "1", 1),
        ("DrainerDefect", "drainer_last_run_exit", "1", "5", 0),
        ("DrainerLedgerUnreadable", "drainer_ledger_readable", "0", "1", 2),
        ("DrainerRefused", "drainer_breakers scope=route state=open", "1", "0", 5),
        (
            "DrainerDomainRefused",
            "drainer_breakers scope=domain state=open",
            "2",
            "0",
            15,
        ),
        ("DrainerMailExpires", "drainer_first_expiry_seconds", "86399", "86401", 5),
        ("DrainerPrimaryDown", "drainer_check_ok stage=rcpt", "0", "1", 15),
        ("DrainerFlapping", "drainer_watch_state_since_seconds", "0+60", "0", 13),
        (
            "DrainerPrimarySlow",
            "drainer_primary_latency_seconds stage=dot",
            "31",
            "29",
            10,
        ),
        ("DrainerPaused", "drainer_controls kind=pause", "1", "0", 240),
        (
            "DrainerRefusalsRipen",
            "drainer_recipients state=bounce-pending",
            "21",
            "20",
            10,
        ),
        ("DrainerHeld", "drainer_recipients state=held", "1", "0", 60),
        ("DrainerInDoubt", "drainer_recipients state=unknown", "1", "0", 30),
        ("DrainerQuarantined", "drainer_recipients state=quarantined", "0+1", "5", 2),
        (
            "DrainerHookRefused",
            "drainer_hook_answers_total path=/ status=401",
            "0+2",
            "0",
            6,
        ),
    )
}
STALLED: Final = {
    "drainer_run_active": "1",
    "drainer_run_messages": "7",
    "drainer_messages part=remaining": "3",
}


def alerts() -> list[dict[str, Any]]:
    """Return every rule."""
    (group,) = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def series(text: str) -> str:
    """Return ``name label=value`` as Prometheus writes it."""
    name, *labels = text.split(" ")
    pairs = [label.split("=") for label in labels]
    pairs += [["job", "drainer"], ["instance", "i"]]
    words = ", ".join(f'{key}="{value}"' for key, value in pairs)
    return f"{name}{{{words}}}"


def case(values: dict[str, str], alert: str, minute: int, *, fires: bool) -> Any:
    """Return a promtool test: these values, and whether the alert fires then."""
    inputs = [
        {
            "series": series(words),
            "values": f"{value}x300" if "+" in value else f"{value}+0x300",
        }
        for words, value in values.items()
    ]
    return {
        "interval": "1m",
        "input_series": inputs,
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}})',
                "eval_time": f"{minute}m",
                "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
            }
        ],
        "name": f"{alert} at minute {minute}",
    }


def cases() -> Iterator[Any]:
    """Yield for every alert: fires when due, not before, and not without reason."""
    for alert, ((words, bad), (_, good), minutes) in ALARMS.items():
        yield case({words: bad}, alert, minutes + 1, fires=True)
        if minutes and "+" not in bad:
            yield case({words: bad}, alert, minutes - 1, fires=False)
        yield case({words: good}, alert, minutes + 5, fires=False)
    yield case(STALLED, "DrainerStalled", 25, fires=True)
    for more in (
        {"drainer_controls kind=pause": "1"},
        {"drainer_breakers route=a scope=route state=paused": "1"},
        {"drainer_run_messages": "7+1"},
        {"drainer_messages part=remaining": "0"},
        {"drainer_run_active": "0"},
    ):
        yield case(STALLED | more, "DrainerStalled", 25, fires=False)


def test_prometheus_takes_the_rules() -> None:
    """Its own checker."""
    ask("promtool", "check", "rules", ALERTS)


def test_every_alert_fires_when_it_is_due_and_only_then(tmp_path: Path) -> None:
    """With values on both sides of each threshold, in Prometheus' own engine."""
    assert {*ALARMS, "DrainerStalled"} == {rule["alert"] for rule in alerts()}
    place = tmp_path / "test.yaml"
    tests = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": list(cases()),
    }
    place.write_text(yaml.safe_dump(tests), "utf-8")
    ask("promtool", "test", "rules", place)


def test_every_alert_leads_to_its_section_of_the_runbook() -> None:
    """Whoever is woken need not search."""
    page = (DOCS / "runbook.md").read_text("utf-8")
    sections = set(map(slug, re.findall(r"^#+ +(.*)$", page, re.MULTILINE)))
    for rule in alerts():
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
        anchor = rule["alert"].lower()
        assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{anchor}"
        assert anchor in sections


def known() -> set[str]:
    """Return the metrics that docs/metrics.md lists; it is generated from the code."""
    page = (DOCS / "metrics.md").read_text("utf-8")
    return set(re.findall(r"^\| `(drainer_[a-z_]+)` \|", page, re.MULTILINE))


def test_alerts_and_dashboard_ask_for_metrics_that_exist() -> None:
    """A misspelt one would be an empty panel, and an alert that never fires."""
    asked = {name for rule in alerts() for name in _METRIC.findall(rule["expr"])}
    asked |= set(_METRIC.findall(DASHBOARD.read_text("utf-8")))
    assert asked - known() == set()


def test_the_dashboard_is_whole() -> None:
    """Every panel asks something, has its place, and a data source to choose."""
    board = json.loads(DASHBOARD.read_text("utf-8"))
    ids, places = set(), set()
    for panel in board["panels"]:
        ids.add(panel["id"])
        places.add((panel["gridPos"]["x"], panel["gridPos"]["y"]))
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert "$instance" in target["expr"]
    assert len(ids) == len(places) == len(board["panels"])


def test_prometheus_can_parse_every_question_of_the_dashboard(tmp_path: Path) -> None:
    """As a rule each, its variables filled in."""
    board = json.loads(DASHBOARD.read_text("utf-8"))
    asked = [t["expr"] for panel in board["panels"] for t in panel["targets"]]
    asked += [each["expr"] for each in board["annotations"]["list"]]
    rules = [
        {"record": f"check:question{n}", "expr": text.replace("$job", ".*")}
        for n, text in enumerate(asked)
    ]
    place = tmp_path / "rules.yaml"
    groups = [{"name": "dashboard", "rules": rules}]
    place.write_text(yaml.safe_dump({"groups": groups}), "utf-8")
    ask("promtool", "check", "rules", place)


def test_the_collector_uses_all_that_it_defines_and_nothing_else() -> None:
    """Each pipeline's components."""
    config = yaml.safe_load(COLLECTOR.read_text("utf-8"))
    pipelines = config["service"]["pipelines"].values()
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in pipelines for name in pipeline[kind]}
        assert used == set(config[kind])
    assert config["service"]["extensions"] == list(config["extensions"])


def test_the_endpoint_in_the_collectors_comment_leads_to_its_receiver() -> None:
    """The configuration that it shows, read as drainer reads it."""
    lines = COLLECTOR.read_text("utf-8").splitlines()
    shown = [line.removeprefix("#   ") for line in lines if line.startswith("#   ")]
    section = tomllib.loads("\n".join(shown))["telemetry"]
    found = TelemetrySection(**section)
    protocols = yaml.safe_load("\n".join(lines))["receivers"]["otlp"]["protocols"]
    assert found.traces == "otlp"
    assert found.endpoint == f"http://{protocols['http']['endpoint']}/v1/traces"
