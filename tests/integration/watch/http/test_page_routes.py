"""The status page in a real browser: what it says, to whom, and what its buttons do."""

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.wait import WebDriverWait

from drainer.policy.pacing.overrides import OverrideKind
from drainer.policy.watch.states import WatchState
from tests.support.web.browser import (
    browser,
    cruising,
    flowing_route,
    look,
    missing_reason,
    open_page,
    refused,
    refused_route,
)
from tests.support.web.http_server import LOCKED, OPERATOR, Hooked, hooked

AXE = files("axe_core_python") / "axe.min.js"
PATIENCE = 20
WIDTHS = """
return [...document.querySelectorAll("main > section")]
  .map((section) => section.getBoundingClientRect().width)
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chrome]:
    """Give a browser for all tests of the module."""
    if reason := missing_reason():
        pytest.skip(reason)
    with browser() as driver:
        yield driver


@pytest.fixture
def page(chromium: Chrome, locked: Hooked) -> Iterator["Page"]:
    """Give the page of a drain that cruises, as a desk in the light shows it."""
    locked.watched.change(**cruising(time.time()))
    opened = Page(chromium, locked)
    opened.log_in()
    yield opened
    chromium.delete_all_cookies()


class Page:
    """The page, by what a person does with it."""

    def __init__(self, driver: Chrome, server: Hooked) -> None:
        """Open nothing yet."""
        self.driver, self.server = driver, server
        look(driver, "desk")

    def log_in(self) -> None:
        """Type the token, where the cursor is."""
        open_page(self.driver, self.server.port, OPERATOR)
        self.until(lambda: self.run("return document.querySelector('[data-ready]')"))

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page."""
        return self.driver.execute_script(script, *arguments)

    def until(self, holds: Callable[[], object]) -> None:
        """Wait until something holds."""
        WebDriverWait(self.driver, PATIENCE, 0.05).until(lambda _: holds())

    def type(self, *keys: str) -> None:
        """Press keys; nothing is clicked."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def text(self, id_: str) -> str:
        """Return what an element says, hidden or not."""
        return str(self.run("return document.getElementById(arguments[0])", id_)) and (
            str(
                self.run(
                    "return document.getElementById(arguments[0]).textContent", id_
                )
            )
        )

    def focused(self) -> str:
        """Return what the keyboard speaks to, by its text or id."""
        script = "const e = document.activeElement; return e.id || e.textContent"
        return str(self.run(script))

    def tab_to(self, name: str) -> None:
        """Press Tab until something has the focus."""
        for _ in range(30):
            if self.focused() == name:
                return
            self.type(Keys.TAB)
        pytest.fail(f"Tab does not lead to {name}")

    def violations(self) -> list[str]:
        """Return what axe finds wrong."""
        self.run(AXE.read_text("utf-8"))
        script = """
        const done = arguments[0];
        axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"]})
          .then((r) => done(r.violations.map((v) =>
            `${v.id}: ${v.nodes.map((n) => n.target + " " + n.failureSummary)}`)));
        """
        found: list[str] = self.driver.execute_async_script(script)
        return found


# ---- what it says


def test_it_shows_how_the_drain_stands(page: Page) -> None:
    """State, numbers, the primary's answers, the breaker, and how it came to this."""
    shown = {
        "state": "cruising",
        "rate-now": "19.2",
        "limit": "messages/s of 20.0",
        "dot-ms-0": "57 ms",
        "breaker-0": "Closed: mail flows.",
        "primary": "mx1.example.org:25",
        "link": "live",
        "of": "of 0 are final",
    }
    assert {id_: page.text(id_) for id_ in shown} == shown
    assert page.text("changes").startswith(
        page.run("return document.querySelector('#changes time').textContent")
    )
    assert "3 good checks in 1 m" in page.text("changes")
    assert page.driver.title == "cruising 19.2/s · drainer"
    current = page.run("return document.querySelector('[aria-current]').textContent")
    assert current == "cruise"


def test_before_the_first_scan_it_does_not_say_that_no_recipient_waits(
    page: Page,
) -> None:
    """The ledger is empty, and no drain has read the spool to its end."""
    page.server.watched.change(state="probing", run=None)
    page.until(lambda: page.text("state") == "probing")
    assert page.text("reasons") == page.text("of") == "Nothing has been scanned yet."
    assert page.text("final") == "\N{EN DASH}"


def test_a_ledger_that_cannot_be_read_is_shown_above_the_counts(
    chromium: Chrome, tmp_path: Path
) -> None:
    """A number that is there was read before, and the banner says when."""
    server = hooked(tmp_path, LOCKED)
    server.url = server.url.set(database=str(tmp_path / "absent.db"))
    with server.running():
        page = Page(chromium, server)
        page.log_in()
        page.until(lambda: page.text("link") == "live")
        assert not page.run("return document.getElementById('lost').hidden")
        assert "there is no ledger at" in page.text("lost")
        assert page.text("lost").endswith("There are no counts.")
        assert page.text("final") == "\N{EN DASH}"
    chromium.delete_all_cookies()


def test_on_a_phone_what_waits_and_why_is_above_the_health_of_the_primary(
    page: Page,
) -> None:
    """Every time has a date and a zone."""
    look(page.driver, "phone")
    sections = page.run(
        "return [...document.querySelectorAll('main > section')]"
        ".sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top)"
        ".map((section) => section.className)"
    )
    assert sections[:3] == ["state", "mail", "reasons"]
    assert re.match(r"since \w+ \d+, \d{4}, \d\d:\d\d:\d\d \S+", page.text("since"))


def test_it_knows_every_state_of_a_watch_in_their_order() -> None:
    """As the table of the watch has them."""
    script = (files("drainer.watch.http") / "static" / "words.js").read_text("utf-8")
    known = script.partition("STATES = [")[2].partition("];")[0]
    assert re.findall(r'^  \["(\w+)"', known, re.MULTILINE) == [*WatchState]


def test_the_chart_has_words_and_a_table(page: Page) -> None:
    """For those who do not see it, and for those who want the numbers."""
    words = page.text("chart-words")
    assert words.startswith("Rate over the last ten minutes: ")
    assert words.endswith("the limit is 20.0.")
    rows = page.run("return document.querySelectorAll('#minutes tr').length")
    assert rows in (7, 8)
    assert page.run("return document.querySelectorAll('#chart .rate').length") == 1


def test_a_breaker_that_is_open_says_what_it_waits_for(page: Page) -> None:
    """The reply in the primary's own words, and the time of the next probe."""
    page.server.watched.change(**refused(time.time()))
    page.until(lambda: page.text("state") == "waiting")
    assert page.text("breaker-0").startswith(
        "Open: the primary refuses us; the known-good"
    )
    assert "tried again until" in page.text("breaker-0")
    assert "550 5.1.1 <known-good@example.org>" in page.text("breaker-reply-0")
    assert "Limited to 5.0 messages/s" in page.text("in-force")
    assert "live mail is slow this morning" in page.text("in-force")


def test_every_route_is_shown_with_its_server_breaker_and_remedy(page: Page) -> None:
    """Not only the first one; the worst breaker is said aloud."""
    other = refused_route(time.time())
    other["route"] = "mx2.example.net:25"
    page.server.watched.change(routes=[flowing_route(), other])
    page.until(lambda: page.text("primary-head") == "The primaries")
    assert page.text("primary") == "mx1.example.org:25, mx2.example.net:25"
    assert "mx1.example.org (192.0.2.25:25) answered last" in page.text("flow-0")
    assert page.text("breaker-0") == "Closed: mail flows."
    assert page.text("breaker-1").startswith("Open: the primary refuses us")
    assert page.text("remedy-1").startswith("What to do: the user table")
    assert page.text("spoken").startswith("The circuit breaker is open.")
    assert page.violations() == []


def test_text_of_strangers_stays_text(page: Page) -> None:
    """A primary's reply is no part of the page."""
    hostile = "<img src=x onerror=\"document.title='taken'\"><b>550"
    route = refused_route(time.time())
    route["breaker"].update({"reply": hostile, "remedy": hostile})
    page.server.watched.change(routes=[route], why=hostile)
    page.until(lambda: page.text("breaker-reply-0") == hostile)
    assert page.text("why") == hostile
    assert page.run("return document.images.length") == 1
    assert page.driver.title != "taken"


def test_a_screen_reader_hears_what_matters_and_no_more(page: Page) -> None:
    """Numbers change silently; a change of state is said once."""
    page.run("""
      window.said = [];
      const spoken = document.getElementById("spoken");
      new MutationObserver(() => said.push(spoken.textContent))
        .observe(spoken, {childList: true});
    """)
    run = page.server.watched.snapshot()["run"]
    assert run is not None
    page.server.watched.change(run={**run, "rate_now": 11.5})
    page.until(lambda: page.text("rate-now") == "11.5")
    assert page.run("return said") == []
    page.server.watched.change(state="done", why="nothing is left", run=None)
    page.until(lambda: page.text("state") == "done")
    assert page.run("return said") == ["The watch is done. nothing is left"]


# ---- for everybody


@pytest.mark.parametrize(("size", "scheme"), [("desk", "light"), ("phone", "dark")])
def test_it_fits_and_axe_finds_nothing(page: Page, size: str, scheme: str) -> None:
    """On a phone and a desk, in the light and in the dark, with all that can show."""
    page.server.watched.change(**refused(time.time()))
    page.until(lambda: page.text("state") == "waiting")
    look(page.driver, size, scheme)
    page.run("document.querySelector('details').open = true")
    inside = "return document.documentElement.scrollWidth <= innerWidth"
    widths = {round(width) for width in page.run(WIDTHS)}
    assert min(widths) > 300
    assert size != "phone" or len(widths) == 1
    assert page.run(inside)
    assert page.violations() == []
    page.run("document.querySelector('[data-order=throttle]').click()")
    assert page.run(inside)
    assert page.violations() == []


def test_the_form_for_the_token_is_for_everybody_too(
    chromium: Chrome, locked: Hooked
) -> None:
    """A wrong one is said aloud."""
    page = Page(chromium, locked)
    open_page(chromium, locked.port, "not the token")
    page.until(lambda: page.run("return document.querySelector('[role=alert]')"))
    assert page.violations() == []
    assert page.run("return document.cookie") == ""


def test_everything_that_takes_the_focus_has_a_name(page: Page) -> None:
    """As the browser tells a screen reader, from its own tree."""
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = {
        str(node["name"]["value"]): node["role"]["value"]
        for node in nodes
        if any(
            prop["name"] == "focusable" and prop["value"]["value"]
            for prop in node.get("properties", [])
        )
        and node["role"]["value"] != "RootWebArea"
    }
    assert {"Pause…", "Resume…", "Change rate…", "Log out"} <= set(named)
    assert "" not in {name for name, role in named.items() if role != "main"}


# ---- its buttons


def test_pausing_by_keyboard_alone_writes_a_control(page: Page) -> None:
    """Tab, Enter, a reason, Enter; then the focus is where it was."""
    page.tab_to("Pause…")
    page.type(Keys.ENTER)
    page.until(lambda: page.focused() == "reason")
    page.type("the primary gets a new disk", Keys.ENTER)
    page.until(lambda: page.text("ordered").startswith("Pause: ordered at "))
    assert page.focused() == "Pause…"
    (control,) = page.server.controls()
    assert (control.ask, control.reason) == (
        OverrideKind.PAUSE,
        "the primary gets a new disk",
    )
    assert control.until is not None
    assert (control.until - control.at).total_seconds() == 600


def test_escape_orders_nothing(page: Page) -> None:
    """Nor does an order without a reason."""
    page.tab_to("Resume…")
    page.type(Keys.ENTER)
    page.until(lambda: page.focused() == "reason")
    page.type(Keys.ENTER)
    assert page.run("return document.getElementById('order').open")
    page.type(Keys.ESCAPE)
    page.until(lambda: page.focused() == "Resume…")
    assert page.server.asks() == []


def test_an_invalid_rate_is_reported_and_can_be_fixed(page: Page) -> None:
    """Where it was typed; what was typed stays."""
    page.tab_to("Change rate…")
    page.type(Keys.ENTER)
    page.until(lambda: page.focused() == "rate")
    page.type("fast", Keys.TAB, Keys.TAB, Keys.TAB, "live mail is slow", Keys.ENTER)
    page.until(lambda: "is not a rate" in page.text("order-wrong"))
    assert page.server.asks() == []
    page.run("document.getElementById('rate').focus()")
    page.type(Keys.BACKSPACE * 4, "30", Keys.TAB, Keys.DOWN, Keys.TAB, Keys.TAB)
    page.type(Keys.ENTER)
    page.until(lambda: page.text("ordered").startswith("Change rate: ordered at "))
    (control,) = page.server.controls()
    assert (control.ask, control.per_second) == (OverrideKind.THROTTLE, 0.5)
    assert control.reason == "live mail is slow"


# ---- when the server is away


def test_what_is_old_is_called_old_until_the_server_is_back(
    chromium: Chrome, tmp_path: Path
) -> None:
    """It comes back by itself, with the session that it had."""
    with contextlib.ExitStack() as first:
        server = first.enter_context(hooked(tmp_path, LOCKED).running())
        page = Page(chromium, server)
        page.log_in()
    page.until(lambda: page.text("link") == "connecting")
    page.run("window.real = Date.now; Date.now = () => real() + 60_000")
    page.until(lambda: "drainer does not answer" in page.text("stale"))
    assert page.text("link") == "not connected"
    assert page.text("spoken") == "Connection lost: this data is old."
    page.run("Date.now = real")
    again = hooked(tmp_path, replace(LOCKED, port=server.port))
    with again.running():
        again.watched.change(state="probing")
        page.until(lambda: page.text("state") == "probing")
        page.until(lambda: page.text("link") == "live")
        assert page.run("return document.getElementById('stale').hidden")
    chromium.delete_all_cookies()
