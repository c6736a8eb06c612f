"""A headless Chromium, and watches that are worth looking at."""

import contextlib
import math
import shutil
from collections.abc import Iterator
from typing import Any, Final

from selenium import webdriver
from selenium.webdriver import Keys
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.support.wait import WebDriverWait

from drainer.watch.http.snapshot import RouteFacts, Sample, StatusSnapshot
from tests.support.web.http_server import ROUTE, armed, moment, quiet_route

SIZES: Final = {"phone": (360, 740), "desk": (1280, 900)}


def missing_reason() -> str:
    """Return why no browser can be started; '' when one can."""
    absent = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    return f"absent: {', '.join(absent)}" if absent else ""


@contextlib.contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """Start Chromium with a profile of its own."""
    options = Options()
    options.binary_location = str(shutil.which("chromium"))
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--disable-background-networking", "--hide-scrollbars", "--no-first-run",
    ):  # fmt: skip
        options.add_argument(argument)
    driver = webdriver.Chrome(options, Service(str(shutil.which("chromedriver"))))
    try:
        driver.set_page_load_timeout(30)
        driver.set_script_timeout(30)
        yield driver
    finally:
        driver.quit()


def look(driver: webdriver.Chrome, size: str, scheme: str = "light") -> None:
    """Make the window of a size, and the reader's wish for light or dark."""
    width, height = SIZES[size]
    metrics: dict[str, Any] = {
        "width": width,
        "height": height,
        "deviceScaleFactor": 1,
        "mobile": size == "phone",
    }
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    wish = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wish})


def open_page(driver: webdriver.Chrome, port: int, token: str) -> None:
    """Open the page by typing the token, without a mouse."""

    def focused(_: webdriver.Chrome) -> bool:
        script = "return document.activeElement.id === 'token'"
        return bool(driver.execute_script(script))

    driver.get(f"http://127.0.0.1:{port}/")
    WebDriverWait(driver, 20, 0.05).until(focused)
    ActionChains(driver).send_keys(token, Keys.ENTER).perform()


# ---- watches


def history(now: float, seconds: int = 420) -> list[Sample]:
    """Return a drain that ramps up, is slowed down once, and cruises."""
    found: list[Sample] = []
    for n in range(seconds):
        limit = min(20.0, 2.0 + n / 8) if not 240 < n < 300 else 10.0
        wave = 0.94 + 0.05 * math.sin(n / 3) + 0.01 * math.sin(n)
        slow = 55.0 if not 225 < n < 245 else 55.0 + 20 * (n - 225)
        dot = slow + 9 * math.sin(n / 7)
        found.append((now - seconds + n + 1, round(limit * wave, 2), limit, dot))
    return found


def cruising(now: float) -> StatusSnapshot:
    """Return a watch in the middle of a drain."""
    changes = [
        ("armed", "down", "primary-down by http 192.0.2.7 alertmanager", 5400),
        ("down", "probing", "primary-up by http 192.0.2.7 alertmanager", 540),
        ("probing", "canary", "3 good checks in 1 m", 440),
        ("canary", "ramp", "the canary was delivered", 421),
        ("ramp", "cruise", "the full rate is reached", 275),
    ]
    return {
        **armed(now),
        "state": "cruise",
        "since": moment(now - 275),
        "why": "the primary takes 20 messages a second without slowing down",
        "run": {
            "id": "5f0c",
            "started": moment(now - 421),
            "scanned": 9120,
            "total": 9120,
            "sent": 6482,
            "bytes": 412_000_000,
            "connections": 5,
            "rate_now": 19.2,
            "limit": 20.0,
        },
        "routes": [flowing_route()],
        "history": history(now),
        "last_decisions": [
            {"before": b, "state": s, "why": w, "at": moment(now - ago)}
            for b, s, w, ago in changes
        ],
    }


def flowing_route() -> RouteFacts:
    """Return a route that mail flows by."""
    return {
        **quiet_route(ROUTE),
        "answered": "mx1.example.org (192.0.2.25:25)",
        "sent": 6482,
        "connections": 5,
        "rate_now": 19.2,
        "limit": 20.0,
        "latency": {"rcpt_ms": 11.2, "dot_ms": 57.0, "connect_ms": 23.0},
        "checks": [
            check("connect", "ok", "", ""),
            check("banner", "ok", "220 mx1.example.org ESMTP", ""),
            check("starttls", "warn", "", "the certificate ends in 6 days"),
            check("accept", "ok", "250 2.1.5 Ok", ""),
            check("reject", "ok", "550 5.1.1 User unknown", ""),
        ],
    }


def refused_route(now: float) -> RouteFacts:
    """Return a route whose primary came back with an empty user table."""
    return {
        **flowing_route(),
        "connections": 0,
        "breaker": {
            "state": "open",
            "reply": "550 5.1.1 <known-good@example.org>: Recipient address rejected:"
            " User unknown in virtual mailbox table",
            "until": moment(now + 258),
            "reason": "the known-good recipient is refused",
            "remedy": "the user table of the primary is not back yet",
        },
    }


def check(stage: str, verdict: str, reply: str, hint: str) -> Any:
    """Return one line of a health check."""
    return {
        "stage": stage,
        "verdict": verdict,
        "reply": reply,
        "seconds": 0.02,
        "hint": hint,
    }


def refused(now: float) -> StatusSnapshot:
    """Return a watch whose primary came back with an empty user table."""
    calm = cruising(now)
    return {
        **calm,
        "state": "waiting",
        "since": moment(now - 42),
        "why": "the primary refuses everybody: the breaker is open",
        "until": moment(now + 258),
        "run": None,
        "routes": [refused_route(now)],
        "controls": {
            "pause": None,
            "throttle": {
                "at": moment(now - 400),
                "until": moment(now + 3200),
                "per_second": 5.0,
                "reason": "live mail is slow this morning",
                "by": "http 192.0.2.20 operator",
            },
        },
    }
