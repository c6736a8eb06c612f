"""`report`: its sums are the ledger's, and nothing hostile gets out of its place."""

import html.parser
import re
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from tests.support.command.runner import Bench
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Script, per_recipient
from tests.support.web.browser import browser, look, missing_reason

AXE = files("axe_core_python") / "axe.min.js"
GONE, LATER, HELD = "gone@example.org", "later@example.org", "held@example.org"
EVIL = '550 5.1.1 <gone@example.org> "><script defer>alert(1)</script> \x1b[31m | ](http://x)'
FORMATS = ("html", "md", "json")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Drain a spool of which something is left in several states."""
    refusals = per_recipient({GONE: EVIL, LATER: "451 4.7.1 greylisted"})
    with PeerThread(Script(rcpt=refusals)) as peer:
        bench = Bench(tmp_path_factory.mktemp("report"), peer.port)
        for n in range(12):
            bench.add(f"user{n}@example.org", f"other{n}@example.org")
        bench.add(GONE, LATER)
        bench.add(HELD)
        bench.configure(telemetry={"addresses": "hashed"})
        assert bench.drain().code == 5
        hold = ("hold", "--recipient", HELD, "--reason", "x")
        assert bench.run(*hold).code in (0, 2)
        yield bench


def written(bench: Bench, style: str) -> str:
    """Return the report in a format."""
    result = bench.run("report", "--format", style)
    assert result.code == 0, result.stderr
    return result.stdout


def test_its_sums_are_those_of_the_ledger(bench: Bench) -> None:
    """By state, by route, by reason, over time, and by age; each adds up."""
    facts = bench.run("report", "--format", "json").json
    states = bench.run("status", "--json").json["states"]
    rows = bench.run("list", "--json").lines
    assert facts["states"] == states
    assert Counter(row["state"] for row in rows) == +Counter(states)
    assert facts["balanced"] is True
    by_route = Counter[str]()
    for route in facts["routes"]:
        by_route.update(route["states"])
    assert +by_route == +Counter(states)
    delivered = states["delivered"]
    assert sum(facts["throughput"]["counts"]) == delivered
    assert sum(each["recipients"] for each in facts["ages"]) == delivered
    reasons = sum(each["recipients"] for each in facts["reasons"])
    assert reasons == sum(states.values()) - delivered
    assert sum(run["messages"] for run in facts["runs"]) == 13
    assert {each["stage"] for each in facts["latency"]} == {
        "mail",
        "rcpt",
        "data",
        "dot",
    }


def test_an_auditor_can_check_any_line(bench: Bench) -> None:
    """The hash of the content, and the id that the primary gave it, if it gave one."""
    for row in bench.run("list", "--json").lines:
        assert re.fullmatch(r"[0-9a-f]{64}", row["sha256"])
        assert "remote_id" in row


@pytest.mark.parametrize(
    ("throttle", "options", "limit"),
    [
        ({"rate": "40/second", "ramp": "0s"}, (), 40),
        ({"rate": "9/second"}, ("--rate", "30/second"), 30),
    ],
)
def test_the_limit_of_a_drain_without_a_ramp_is_shown(
    tmp_path: Path, throttle: dict[str, object], options: tuple[str, ...], limit: int
) -> None:
    """From its start, although nothing changes it."""
    with PeerThread() as peer:
        bench = Bench(tmp_path, peer.port)
        bench.add("a@example.org")
        bench.configure(throttle=throttle)
        assert bench.drain(*options).code == 0
    (found,) = bench.run("report", "--json").json["throughput"]["limits"]
    assert found["per_second"] == limit


class _Tags(html.parser.HTMLParser):
    """Collects elements, their attributes, and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_and_runs_nothing(bench: Bench) -> None:
    """No script, no link, nothing from the network; hostile text is text."""
    page = _Tags()
    page.feed(written(bench, "html"))
    assert "<script defer>alert(1)</script>" in page.text
    assert {"script", "link", "img", "iframe", "object", "a"}.isdisjoint(page.tags)
    names = {name for name, _ in page.attributes}
    assert {"src", "href"}.isdisjoint(names)
    assert not [name for name in names if name.startswith("on")]
    assert "\x1b" not in page.text
    assert "url(" not in page.text
    assert "svg" in page.tags


@pytest.mark.parametrize("style", FORMATS)
def test_addresses_are_hashed_as_in_traces(bench: Bench, style: str) -> None:
    """A report is handed on; who may see addresses sets them to plain."""
    text = written(bench, style)
    for secret in (GONE, "gone@", LATER, "s@example.com"):
        assert secret not in text
    bench.configure(telemetry={"addresses": "plain"})
    try:
        assert "gone" in written(bench, style)
    finally:
        bench.configure(telemetry={"addresses": "hashed"})


def test_markdown_cannot_be_broken_by_a_reply(bench: Bench) -> None:
    """Its signs are escaped, and so is HTML."""
    text = written(bench, "md")
    assert "<script" not in text
    assert not re.search(r"(?<!\\)\]\(", text)
    assert "http://" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1


def test_a_file_is_private_and_replaced_in_one_step(bench: Bench) -> None:
    """And its folder must exist."""
    path = bench.root / "report.html"
    path.write_text("old")
    assert bench.run("report", "--output", str(path)).code == 0
    assert path.read_text().startswith("<!doctype html>")
    assert path.stat().st_mode & 0o777 == 0o600
    refused = bench.run("report", "--output", str(bench.root / "absent" / "x"))
    assert refused.code == 2


@pytest.mark.parametrize("style", FORMATS)
def test_an_empty_ledger_has_a_report(tmp_path: Path, style: str) -> None:
    """Nothing happened, and it says so."""
    with PeerThread() as peer:
        bench = Bench(tmp_path, peer.port)
        assert bench.drain().code == 0
        assert "0 recipients" in written(bench, style) or style == "json"


def test_three_sentences_say_what_happened(bench: Bench) -> None:
    """How much, what remains, and how the delivery stands."""
    head = written(bench, "md").split("## What to do")[0]
    assert "recorded 27 recipients of 14 messages and delivered to 25" in head
    assert "2 recipients remain." in head
    assert "ended with exit status 5" in head


@pytest.mark.skipif(bool(missing_reason()), reason=missing_reason())
def test_axe_finds_nothing_in_light_and_dark_and_on_paper(bench: Bench) -> None:
    """On a phone and a desk; nothing is wider than the window."""
    path = bench.root / "page.html"
    path.write_text(written(bench, "html"))
    with browser() as driver:
        for size, scheme in (("phone", "light"), ("desk", "dark")):
            look(driver, size, scheme)
            driver.get(f"file://{path}")
            driver.execute_script(AXE.read_text("utf-8"))
            script = """const done = arguments[0];
                axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21aa",
                "best-practice"]}).then(r => done(r.violations.map(
                v => v.id + ": " + v.nodes.map(n => n.html).join("; "))));"""
            found: Any = driver.execute_async_script(script)
            assert found == []
            width = "return document.documentElement.scrollWidth > innerWidth"
            assert driver.execute_script(width) is False
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        assert driver.execute_cdp_cmd("Page.printToPDF", {})["data"]
