"""Hooks and orders on a real socket: who may, and what the ledger keeps."""

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from drainer.policy.pacing.overrides import OverrideKind
from drainer.watch.http.auth import SIGNATURE, TIMESTAMP, signature
from tests.support.docs import DOCS
from tests.support.paths import DATA
from tests.support.web.http_server import HMAC, OPERATOR, TOKEN, Hooked, hooked

UP, DOWN = "/hooks/primary-up", "/hooks/primary-down"
SAMPLES = DATA / "hooks"


# ---- hooks


def test_a_hook_is_written_down_and_answered_with_the_state(locked: Hooked) -> None:
    """Its words and its sender are kept with it."""
    body = (SAMPLES / "alertmanager-resolved.json").read_bytes()
    answer = locked.post(UP, body, token=TOKEN)
    assert (answer.status, answer.json["state"]) == (202, "armed")
    (control,) = locked.controls()
    assert (control.ask, control.by) == (OverrideKind.UP, "http 127.0.0.1 alertmanager")
    assert control.reason == "resolved: mx1.example.org does not answer on port 25"


def test_the_other_kind_of_news_is_ignored_with_words(locked: Hooked) -> None:
    """A receiver gets both; nothing is written down."""
    body = (SAMPLES / "alertmanager-firing.json").read_bytes()
    answer = locked.post(UP, body, token=TOKEN)
    assert answer.status == 200
    assert answer.json["taken"] is False
    assert "not news of primary-up" in answer.json["words"]
    assert locked.asks() == []


def test_two_hooks_at_once_are_both_taken(locked: Hooked) -> None:
    """Neither is lost, and neither fails: the watch makes one of them."""
    answers: list[int] = []

    def give() -> None:
        answers.append(locked.post(UP, {}, token=TOKEN).status)

    threads = [threading.Thread(target=give) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [202] * 6
    assert locked.asks() == ["up"] * 6


@pytest.mark.parametrize("token", ["", "wrong-token-0123456789", OPERATOR, TOKEN[:-1]])
def test_without_the_token_no_hook_is_taken(locked: Hooked, token: str) -> None:
    """The operator's is another one."""
    answer = locked.post(UP, {}, token=token)
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert TOKEN not in answer.words
    assert locked.asks() == []


def test_a_signed_hook_counts_once(locked: Hooked) -> None:
    """What is replayed, spoilt or old is refused."""
    body, now = b'{"reason": "signed"}', str(int(time.time()))
    mac = signature(HMAC, now, f"POST {DOWN}", body)
    right = {TIMESTAMP: now, SIGNATURE: f"sha256={mac}"}
    assert locked.post(DOWN, body, headers=right).status == 202
    again = locked.post(DOWN, body, headers=right)
    assert (again.status, again.words) == (401, "this signature has been used before")
    assert locked.post(DOWN, body + b" ", headers=right).status == 401
    old = str(int(time.time()) - 301)
    mac = signature(HMAC, old, f"POST {DOWN}", body)
    late = {TIMESTAMP: old, SIGNATURE: mac}
    assert "five minutes" in locked.post(DOWN, body, headers=late).words
    assert [control.reason for control in locked.controls()] == ["signed"]


def test_without_secrets_loopback_may_give_hooks_and_read_but_no_orders(
    unlocked: Hooked,
) -> None:
    """Orders are always somebody's."""
    assert unlocked.post(UP).status == 202
    assert unlocked.get("/").status == 200
    assert unlocked.get("/metrics").status == 200
    assert unlocked.get("/api/status").json["orders"] is False
    refused = unlocked.post("/api/pause", {"reason": "x"})
    assert refused.status == 403
    assert "operator_token_file" in refused.words
    assert unlocked.asks() == ["up"]


def test_a_ledger_that_cannot_be_written_is_reported_and_makes_it_unready(
    tmp_path: Path,
) -> None:
    """The sender tries again; nobody believes that it was taken."""
    with hooked(tmp_path).running() as server:
        (tmp_path / "ledger.db").write_bytes(b"this is no database at all" * 40)
        refused = server.post(UP, {}, token=TOKEN)
        assert refused.status == 503
        assert "ledger" in refused.words
        ready = server.get("/readyz")
        assert (ready.status, ready.json["ready"]) == (503, False)
        assert "ledger" in ready.json["words"]
        assert server.get("/healthz").status == 200
        text = server.get("/metrics", token=TOKEN).body
        assert b"drainer_ledger_readable 0.0" in text
        assert b"drainer_recipients{" not in text


# ---- orders


@pytest.mark.parametrize(
    ("order", "body", "per_second", "lasts"),
    [
        ("pause", {"reason": "backup runs"}, None, None),
        ("pause", {"reason": "backup runs", "for": "90s"}, None, 90),
        ("resume", {"reason": "done", "for": "90s"}, None, None),
        ("throttle", {"reason": "slow", "rate": "30/minute", "for": "1h"}, 0.5, 3600),
        ("throttle", {"reason": "slow", "rate": 7}, 7.0, None),
        ("throttle", {"reason": "well again", "rate": ""}, None, None),
    ],
)
def test_an_order_is_written_down_with_its_reason(
    locked: Hooked,
    order: str,
    body: dict[str, object],
    per_second: float | None,
    lasts: float | None,
) -> None:
    """And with who gave it, its rate, and its end."""
    answer = locked.post(f"/api/{order}", body, token=OPERATOR)
    assert answer.status == 202
    (control,) = locked.controls()
    assert (control.ask, control.reason) == (OverrideKind(order), body["reason"])
    assert control.by == "http 127.0.0.1 operator"
    assert control.per_second == per_second
    left = (control.until - control.at).total_seconds() if control.until else None
    assert left == pytest.approx(lasts, abs=2) if lasts else left is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "a reason is needed"),
        ({"reason": " "}, "a reason is needed"),
        ({"reason": 1}, "a reason is needed"),
        ({"reason": "x", "rate": "fast"}, "is not a rate"),
        ({"reason": "x", "rate": "unlimited"}, "a rate is written"),
        ({"reason": "x", "rate": "0/second"}, "never send"),
        ({"reason": "x", "rate": True}, "a rate is written"),
        ({"reason": "x", "rate": ["5/second"]}, "a rate is written"),
        (b'{"reason": "x", "rate": NaN}', "is not a rate"),
        (b'{"reason": "x", "rate": 1e999}', "is not a rate"),
        (b'{"reason": "x", "rate": 1%s}' % (b"0" * 400), "too large"),
        (b'{"reason": "x", "rate": 1%s}' % (b"0" * 5000), "a JSON object"),
        ({"reason": "x", "rate": "5/second", "for": "soon"}, "is not a valid duration"),
        ({"reason": "x", "rate": "5/second", "for": "0"}, "longer than zero"),
        ({"reason": "x", "rate": "5/second", "for": "999d"}, "at most a year"),
        ({"reason": "x", "until": "tomorrow"}, "unknown: until"),
        ([], "a JSON object"),
        (b"reason=x", "a JSON object"),
    ],
    ids=repr,
)
def test_an_order_that_cannot_be_followed_is_reported(
    locked: Hooked, body: object, words: str
) -> None:
    """And is not written down."""
    answer = locked.post("/api/throttle", body, token=OPERATOR)
    assert answer.status == 400
    assert words in answer.words
    assert locked.asks() == []


@pytest.mark.parametrize("token", ["", TOKEN])
def test_only_the_operators_token_gives_orders_and_reads(
    locked: Hooked, token: str
) -> None:
    """Whoever may fire a hook may not pause."""
    assert locked.post("/api/pause", {"reason": "x"}, token=token).status == 401
    for path in ("/api/status", "/api/events", "/"):
        assert locked.get(path, token=token).status == 401
    assert locked.asks() == []


# ---- docs/hook.md


def recipes() -> list[tuple[str, str]]:
    """Return the programs of the documentation, each with its language."""
    text = (DOCS / "hook.md").read_text("utf-8")
    return re.findall(r"^```(sh|python)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("language", "program"), recipes(), ids=["sh", "sh2", "py"])
def test_what_the_documentation_says_works(
    locked: Hooked, tmp_path: Path, language: str, program: str
) -> None:
    """Its recipes are run as they stand, but for the port and the folder."""
    (tmp_path / "hook.hmac").write_text(f"{HMAC}\n", "utf-8")
    (tmp_path / "hook.header").write_text(f"Authorization: Bearer {TOKEN}\n", "utf-8")
    here = program.replace("/etc/drainer", str(tmp_path))
    here = here.replace("127.0.0.1:8025", f"127.0.0.1:{locked.port}")
    command = [sys.executable, "-c"] if language == "python" else ["sh", "-c"]
    environment = {**os.environ, "no_proxy": "*"}
    subprocess.run([*command, here], check=True, timeout=60, env=environment)
    (control,) = locked.controls()
    assert control.ask is OverrideKind.UP
    reasons = ("primary answers again", "the primary is back", "keepalived: MASTER")
    assert control.reason in reasons
