"""What bodies mean: samples as the senders document them, and everything else."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.policy.pacing.overrides import OverrideKind
from drainer.watch.http.payloads import MAX_WORDS, BodyError, read_body
from tests.support.paths import DATA

SAMPLES = DATA / "hooks"
UP, DOWN = OverrideKind.UP, OverrideKind.DOWN


@pytest.mark.parametrize(
    ("sample", "at_up", "at_down", "words"),
    [
        ("alertmanager-firing", None, DOWN, "firing: mx1.example.org does not answer"),
        ("alertmanager-resolved", UP, None, "resolved: mx1.example.org does not"),
        ("grafana-firing", None, DOWN, "firing: mx1 does not answer"),
        ("grafana-test", None, None, "a test"),
        ("uptime-kuma-down", None, DOWN, "[mx1 port 25] [\N{LARGE RED CIRCLE} Down]"),
        ("uptime-kuma-up", UP, None, "[mx1 port 25] ["),
        ("uptime-kuma-test", None, None, "drainer Testing"),
    ],
)
def test_each_url_takes_the_news_that_it_is_named_after(
    sample: str, at_up: OverrideKind | None, at_down: OverrideKind | None, words: str
) -> None:
    """An alert that fires says nothing good, one that is resolved nothing bad."""
    body = (SAMPLES / f"{sample}.json").read_bytes()
    up, down = read_body(body, UP), read_body(body, DOWN)
    assert (up.ask, down.ask) == (at_up, at_down)
    assert up.words == down.words
    assert up.words.startswith(words)
    assert sample.startswith(up.sender)


@pytest.mark.parametrize("body", [b"", b" \n", b"{}", b'{"reason": 7}', b'{"x": []}'])
@pytest.mark.parametrize("url", [UP, DOWN])
def test_a_body_without_news_of_its_own_means_what_its_url_says(
    body: bytes, url: OverrideKind
) -> None:
    """So does that of a sender whom we do not know."""
    assert read_body(body, url).ask is url


@pytest.mark.parametrize("status", [2, 3])
def test_pending_and_maintenance_are_no_news(status: int) -> None:
    """Uptime Kuma is not sure yet, or has been told not to look."""
    body = json.dumps({"heartbeat": {"status": status}, "msg": "x"}).encode()
    assert read_body(body, UP).ask is read_body(body, DOWN).ask is None


@pytest.mark.parametrize(
    "body",
    [
        b"primary is up",
        b"[]",
        b'"up"',
        b"null",
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"alerts": [], "status": "weird"}',
        b'{"alerts": [], "status": ["firing"]}',
        b'{"heartbeat": {"status": true}}',
        b'{"heartbeat": {"status": "1"}}',
        b'{"heartbeat": [1]}',
        b'{"heartbeat": {}}',
    ],
    ids=lambda body: repr(body[:40]),
)
def test_what_cannot_be_read_is_reported(body: bytes) -> None:
    """A sender that means something must not be misunderstood."""
    with pytest.raises(BodyError):
        read_body(body, UP)


def test_words_are_escaped_and_cut() -> None:
    """They end in a terminal, a log, and a page."""
    body = json.dumps({"reason": "\x1b[31m\u202e" + "x" * 1000}).encode()
    words = read_body(body, UP).words
    assert words.startswith("\\x1b[31m\\u202exxx")
    assert words.isprintable()
    assert len(words) < MAX_WORDS + 50


OURS = st.sampled_from(
    ["status", "alerts", "heartbeat", "msg", "labels", "annotations"]
)
LEAF = st.sampled_from([None, True, 0, 1, 1e300, "", "firing", "resolved", "\x00"])
BELOW = st.dictionaries(OURS, LEAF, max_size=4)


@given(st.dictionaries(OURS, LEAF | BELOW | st.lists(BELOW | LEAF, max_size=3)))
def test_no_object_makes_it_fail(payload: dict[str, object]) -> None:
    """It has a meaning, or a BodyError says why not."""
    body = json.dumps(payload).encode()
    try:
        meaning = read_body(body, DOWN)
    except BodyError:
        return
    assert meaning.ask in (None, DOWN)
    assert meaning.words.isprintable()
