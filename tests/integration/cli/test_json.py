"""docs/json.md has every field that a command prints with --json, and no other."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.command.runner import Bench, call
from tests.support.paths import ROOT
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Script, per_recipient
from tests.test_docs import commands

ALICE, BOB, CAROL, DAVE = (
    f"{name}@example.org" for name in ("alice", "bob", "carol", "dave")
)
REPLIES: Final = {
    BOB: "450 4.7.1 later",
    CAROL: "550 5.1.1 unknown",
    DAVE: "550 5.1.1 unknown",
}
ELSEWHERE: Final = {
    "census": "census.md", "config": "configuration.md", "doctor": "doctor.md",
}  # fmt: skip
"""Commands whose JSON another page describes."""
SAME: Final = {"bounces run": "drain"}
NO_FILE: Final = {"spool create"}
NO_LEDGER: Final = {"check", "classify", "notify", "spool import"} | NO_FILE

_SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_ROW = re.compile(r"^\| (`.+?`) \| (.+) \|$", re.MULTILINE)
_NAME = re.compile(r"`([^`]+)`")


def documented() -> dict[str, dict[str, bool]]:
    """Return the fields of every command; True: there always, False: only sometimes."""
    text = (ROOT / "docs" / "json.md").read_text("utf-8")
    found: dict[str, dict[str, bool]] = {}
    for title, body in _SECTION.findall(text):
        fields: dict[str, bool] = {}
        for names, value in _ROW.findall(body):
            always = not value.startswith("only")
            for name in _NAME.findall(names):
                if name.endswith("."):  # the fields of a command named in the value
                    listed = found[_NAME.findall(value)[0]]
                    fields |= {name + key: must for key, must in listed.items()}
                else:
                    fields[name] = always
        found |= dict.fromkeys(_NAME.findall(title) or [title], fields)
    return found


FIELDS: Final = documented()


def paths(value: Any, place: str = "") -> Iterator[tuple[str, bool]]:
    """Yield every field by its path, and whether it has a value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from paths(inner, f"{place}.{key}" if place else key)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for inner in value:
            yield from paths(inner, f"{place}[]")
    else:
        yield place, value not in (None, [], {})


def field_of(path: str, *, has_value: bool, fields: dict[str, bool]) -> str:
    """Return the documented name of a path; '' if it has none."""
    if path in fields:
        return path
    wild = (f for f in fields if f.endswith(".*") and path.startswith(f[:-1]))
    inner = (f for f in fields if f.startswith((f"{path}.", f"{path}[]")))
    return next(wild, "") or ("" if has_value else next(inner, ""))


class Scenario:
    """Runs commands, and keeps what they print."""

    def __init__(self, bench: Bench) -> None:
        """Start with no output."""
        self.bench = bench
        self.printed: dict[str, list[Any]] = {}

    def run(self, name: str, *args: str | Path) -> Any:
        """Run a command with the options that it has; return its last object."""
        words = (*name.split(), *args, "--json")
        if name in NO_LEDGER:
            settings = () if name in NO_FILE else ("--config", self.bench.config)
            result = call(*words, *settings)
        else:
            result = self.bench.run(*words)
        assert result.stdout, f"{name}: {result.stderr}"
        self.printed.setdefault(name, []).extend(result.lines)
        return result.json


def before_and_while_draining(scenario: Scenario, spool: str) -> None:
    """Look at the spool, drain it, and look at the ledger."""
    run, bench = scenario.run, scenario.bench
    bench.add(ALICE)
    run("plan", spool)
    assert run("drain", spool)["exit"] == 0
    (bench.spool / ".drainer").unlink()
    run("ledger prune", "--older-than", "400d", "--dry-run")
    for path in (*REPLIES, "eve@other.example"):
        bench.add(path, sender="" if path == DAVE else "s@sender.example")
    bench.add(ALICE, text=b"Received: by x\n" * 100 + b"\nbody\n")
    run("inspect", spool)
    run("plan", spool)
    run("drain", spool)
    run("plan", spool)
    run("check")
    run("status", spool)
    run("list")
    run("list", "--count-by", "reason")
    run("list", "--count-by", "domain")
    run("list", "--count-by", "sender")
    run("spool settle", spool, "--dry-run")
    run("spool give-back", spool)


def act(scenario: Scenario, ids: dict[str, str]) -> None:
    """Do what an operator does to recipients and to a drain."""
    run, because = scenario.run, ("--reason", "test")
    for name in ("show", "why", "bounces show"):
        run(name, ids[CAROL])
    run("bounces list")
    run("verify", ids[CAROL])
    for name in ("hold", "release", "requeue", "discard"):
        run(name, ids[BOB], *because)
    for name in ("bounces cancel", "bounces approve"):
        run(name, ids[CAROL if "cancel" in name else DAVE], *because, "--yes")
    run("quarantine list")
    run("quarantine show", ids[CAROL])
    kept = scenario.bench.root / "kept"
    run("quarantine export", ids[CAROL], "--to", f"eml:{kept}")
    run("throttle set", "5/second", *because)
    run("throttle pause", *because)
    run("throttle show")
    for name in ("hook up", "hook down", "throttle clear", "throttle resume"):
        run(name)
    for name in ("quarantine release", "quarantine purge"):
        run(name, ids[CAROL], *because, "--yes")


def look_back(scenario: Scenario, spool: str) -> None:
    """Look at all that happened, and at what needs no drain."""
    run, root = scenario.run, scenario.bench.root
    run("digest")
    run("report")
    run("bounces run")
    run("ledger check")
    run("ledger backup", root / "copy.db")
    run("classify", "550 5.1.1 unknown")
    run("notify", "--test")
    mail = f"sqlite:///{root}/mail.db"
    run("spool create", mail)
    run("spool import", spool, mail)


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Return what the commands of a whole story print, by command."""
    root = tmp_path_factory.mktemp("json")
    with PeerThread(Script(rcpt=per_recipient(dict(REPLIES)))) as primary:
        bench = Bench(root, primary.port)
        bench.configure(
            retry={"first": "1h", "max": "1h"}, notify={"command": ["true"]}
        )
        scenario, spool = Scenario(bench), f"postfix:{bench.spool}"
        before_and_while_draining(scenario, spool)
        act(
            scenario,
            {f["forward_path"]: f["id"] for f in bench.run("list", "--json").lines},
        )
        look_back(scenario, spool)
    refusing = root / "refusing"
    refusing.mkdir()
    with PeerThread(Script(rcpt="550 5.7.1 Relaying denied")) as primary:
        bench = Bench(refusing, primary.port)
        bench.add(*(f"user{n}@example.org" for n in range(12)))
        bench.add(ALICE)
        assert bench.drain().code == 4
        scenario.bench = bench
        scenario.run("status")
        scenario.run("why", "0123456789")
        scenario.printed["Errors"] = [scenario.printed["why"].pop()]
    return scenario.printed


def test_every_command_with_json_is_documented() -> None:
    """And no other."""
    with_json = {
        name
        for name, command in commands()
        if any("--json" in each.opts for each in command.params)
    }
    described = set(FIELDS) | set(ELSEWHERE) | set(SAME)
    assert described - {"Errors"} == with_json


@pytest.mark.parametrize("name", sorted({*FIELDS, *SAME}))
def test_the_fields_of_a_command_are_documented(
    printed: dict[str, list[Any]], name: str
) -> None:
    """A field that is not there only sometimes is there."""
    fields = FIELDS[SAME.get(name, name)]
    found = [pair for each in printed[name] for pair in paths(each)]
    names = {path: field_of(path, has_value=has, fields=fields) for path, has in found}
    assert sorted(path for path, field in names.items() if not field) == []
    must = {field for field, always in fields.items() if always and name not in SAME}
    assert sorted(must - set(names.values())) == []
