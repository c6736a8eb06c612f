"""Make the screenshots of docs/ again: ``make shots``.

The page is the real one, in a real browser, with the ledger of a real drain to a
scripted primary; only the watch is made up. Tests compare nothing with them.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Final, cast

from selenium.webdriver import Chrome
from selenium.webdriver.support.wait import WebDriverWait

from drainer.ledger import engine
from drainer.watch.http.snapshot import StatusSnapshot
from tests.support.command.runner import Bench, call
from tests.support.docs import DOCS
from tests.support.scenarios.primaries import OK
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Script, View
from tests.support.web.browser import (
    browser,
    cruising,
    look,
    missing_reason,
    open_page,
    refused,
)
from tests.support.web.http_server import LOCKED, OPERATOR, Hooked, Show

FOLDER: Final = DOCS / "images"
SHOTS: Final = (
    ("status-1280-light", cruising, "desk", "light"),
    ("status-360-dark", cruising, "phone", "dark"),
    ("status-360-open-light", refused, "phone", "light"),
)
REPLIES: Final = {
    "busy": "450 4.7.1 <{}>: Recipient address rejected: Greylisted",
    "full": "452 4.2.2 <{}>: mailbox is full",
    "gone": "550 5.1.1 <{}>: Recipient address rejected: User unknown",
}
SHARES: Final = {"user": 1380, "later": 540, "busy": 64, "full": 9, "gone": 6}


def answer(view: View) -> str:
    """Answer by the first part of the address."""
    name = view.path.partition("@")[0].rstrip("0123456789")
    reply = REPLIES["full" if name == "later" else name] if name != "user" else OK
    return reply.format(view.path)


def drained(folder: Path) -> Path:
    """Drain a spool, most of it; return the ledger."""
    bench = Bench(folder)
    for name, count in SHARES.items():
        for n in range(count):
            bench.add(f"{name}{n}@example.org", sender=f"s@sender{n % 7}.example")
    with PeerThread(Script(rcpt=answer), host="127.0.0.1", port=0) as primary:
        bench.port = primary.port
        bench.configure(primary={"connections": 5}, retry={"first": "20m", "max": "1h"})
        bench.drain()
    bench.run("requeue", "--recipient", "later", "--reason", "screenshot", "--json")
    return bench.ledger


def write_sample(ledger: Path) -> None:
    """Write the sample of ``drainer report``."""
    report = call("report", "--ledger", ledger)
    text = report.stdout.replace(str(ledger), "/var/lib/drainer/ledger.db")
    (DOCS / "report-sample.html").write_text(text, "utf-8")
    print("wrote docs/report-sample.html")


def told(snapshot: StatusSnapshot) -> StatusSnapshot:
    """Return a watch whose run has sent what the ledger says."""
    total = sum(SHARES.values())
    if snapshot["run"] is not None:
        sent = SHARES["user"]
        run = {**snapshot["run"], "sent": sent, "scanned": total, "total": total}
        return cast("StatusSnapshot", {**snapshot, "run": run})
    return snapshot


def shot(driver: Chrome, server: Hooked, size: str, scheme: str) -> bytes:
    """Open the page, and return what a window shows of it, as a PNG."""
    look(driver, size, scheme)
    driver.delete_all_cookies()
    open_page(driver, server.port, OPERATOR)
    ready = "return document.querySelector('[data-ready]')"
    WebDriverWait(driver, 30).until(lambda _: driver.execute_script(ready))
    return driver.get_screenshot_as_png()


def main() -> int:
    """Write the pictures."""
    if reason := missing_reason():
        print(f"no browser: {reason}", file=sys.stderr)
        return 1
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, browser() as driver:
        ledger = drained(Path(folder))
        write_sample(ledger)
        url = engine.parse_url(str(ledger))
        for name, make, size, scheme in SHOTS:
            watched = Show(told(make(time.time())))
            with Hooked(LOCKED, watched, url).running() as server:
                (FOLDER / f"{name}.png").write_bytes(shot(driver, server, size, scheme))
            print(f"wrote docs/images/{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
