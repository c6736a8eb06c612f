"""What browsers and monitoring systems read, and what a browser is kept from."""

import http.client
import json
import time
from pathlib import Path

import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families as parse

from drainer.watch.metrics import METRICS
from tests.support.paths import DATA
from tests.support.web.browser import cruising, refused_route
from tests.support.web.http_server import LOCKED, OPERATOR, ROUTE, TOKEN, Hooked, hooked

UP, DOWN = "/hooks/primary-up", "/hooks/primary-down"
SAMPLES = DATA / "hooks"


# ---- browsers


def test_a_session_opens_the_page_and_is_no_token(locked: Hooked) -> None:
    """HttpOnly, SameSite=Strict, and not what was typed."""
    cookie = locked.log_in()
    assert OPERATOR not in cookie
    for word in ("HttpOnly", "SameSite=strict", "Max-Age=43200", "Path=/"):
        assert word.lower() in cookie.lower()
    headers = {"Cookie": cookie.partition(";")[0]}
    assert b'id="state"' in locked.get("/", headers=headers).body
    order = {"reason": "from the page"}
    assert locked.post("/api/pause", order, headers=headers).status == 202
    left = locked.post("/logout", headers=headers)
    assert 'drainer_session=""' in str(left.headers["Set-Cookie"])


def test_a_wrong_token_shows_the_form_again(locked: Hooked) -> None:
    """With words, and without a cookie."""
    answer = locked.post("/login", b"token=wrong")
    assert answer.status == 401
    assert b"This is not the token" in answer.body
    assert answer.headers["Set-Cookie"] is None
    assert locked.post("/login", b"\xff&" * 200).status in (400, 401)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_a_page_of_another_site_gives_no_orders(
    locked: Hooked, headers: dict[str, str]
) -> None:
    """Although its browser has a session here; nor hooks, where they need no token."""
    own = {"Cookie": locked.log_in().partition(";")[0]}
    answer = locked.post("/api/pause", {"reason": "x"}, headers=own | headers)
    assert (answer.status, locked.asks()) == (403, [])
    assert locked.post(UP, {}, token=TOKEN, headers=headers).status == 403


def test_our_own_page_and_a_named_proxys_give_orders(tmp_path: Path) -> None:
    """Origin is then where we are, or what [hook] names says."""
    settings = replace(LOCKED, names=frozenset(("drainer.example.org",)))
    with hooked(tmp_path, settings).running() as server:
        here = {"Origin": f"http://127.0.0.1:{server.port}"}
        there = {
            "Origin": "https://drainer.example.org",
            "Host": "drainer.example.org",
        }
        for headers in (here, there):
            order = {"reason": "x"}
            answer = server.post("/api/pause", order, token=OPERATOR, headers=headers)
            assert answer.status == 202
        cookie = server.post("/login", f"token={OPERATOR}".encode(), headers=there)
        assert "Secure" in str(cookie.headers["Set-Cookie"])


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 421),
        ("evil.example:8025", 421),
        ("127.0.0.1.evil.example", 421),
        ("[", 400),
        ("", 421),
        ("localhost:8025", 200),
        ("127.0.0.1", 200),
        ("[::1]:8025", 200),
    ],
)
def test_on_loopback_only_its_own_names_are_served(
    unlocked: Hooked, host: str, status: int
) -> None:
    """A strange name that leads here (DNS rebinding) lets a strange page read."""
    assert unlocked.get("/api/status", headers={"Host": host}).status == status


def test_every_answer_says_what_a_browser_may_do_with_it(locked: Hooked) -> None:
    """Also those that refuse."""
    for path in ("/", "/healthz", "/page.css", "/nowhere", "/api/status"):
        headers = locked.get(path).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Server"] is None


# ---- what is read


def test_the_status_is_that_of_the_watch_and_of_the_ledger(locked: Hooked) -> None:
    """As `status --json`, and what waits by reason."""
    facts = locked.get("/api/status", token=OPERATOR).json
    assert facts["watch"]["state"] == "armed"
    assert facts["ledger"]["balanced"] is True
    assert facts["ledger"]["reasons"] == []
    assert facts["eta_seconds"] is None
    assert facts["orders"] is True


def test_a_change_reaches_the_pages_at_once(unlocked: Hooked) -> None:
    """With no more of the history than they lack."""
    now = time.time()
    unlocked.watched.change(history=[(now - 1, 5.0, 10.0, None)])
    connection = unlocked.connect()
    connection.request("GET", "/api/events")
    response = connection.getresponse()
    assert response.headers["Content-Type"].startswith("text/event-stream")
    first = event(response)
    assert first["watch"]["history"] == [[now - 1, 5.0, 10.0, None]]
    later = (now, 6.0, 10.0, 40.0)
    history = [*unlocked.watched.snapshot()["history"], later]
    unlocked.watched.change(state="ramp", history=history)
    second = event(response)
    assert second["watch"]["state"] == "ramp"
    assert second["watch"]["history"] == [list(later)]
    connection.close()


def event(response: http.client.HTTPResponse) -> dict[str, dict[str, object]]:
    """Read one event of a stream."""
    for line in response:
        if line.startswith(b"data: "):
            found: dict[str, dict[str, object]] = json.loads(line[6:])
            return found
    raise AssertionError


def test_metrics_are_what_prometheus_reads(locked: Hooked) -> None:
    """By the parser of its makers; every name stands in docs/metrics.md."""
    other = refused_route(time.time())
    other["route"] = "mx2.example.net:25"
    watch = cruising(time.time())
    watch["routes"].append(other)
    locked.watched.change(**watch)
    locked.post(UP, {}, token=TOKEN)
    answer = locked.get("/metrics", token=TOKEN)
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    families = {family.name: family for family in parse(answer.body.decode())}
    assert set(families) == {metric.name for metric in METRICS}
    values = {
        (sample.name, *sample.labels.values()): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert values["drainer_watch_state", "cruise"] == 1
    assert values["drainer_rate_messages_per_second", ROUTE] == 19.2
    assert values["drainer_run_connections", "mx2.example.net:25"] == 0
    assert values["drainer_primary_latency_seconds", ROUTE, "dot"] == 0.057
    assert values["drainer_check_ok", ROUTE, "reject"] == 1
    assert values["drainer_hook_answers_total", UP, "202"] == 1
    assert values["drainer_breakers", ROUTE, "route", "closed"] == 1
    assert values["drainer_breakers", "mx2.example.net:25", "route", "closed"] == 0
    assert values["drainer_breakers", "mx2.example.net:25", "route", "open"] == 1
    assert values["drainer_balanced",] == 1
    assert b"@" not in answer.body
