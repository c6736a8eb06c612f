"""What an operator types: durations, sizes, rates, hosts, sources, rules, settings."""

import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from drainer.cli.filters import with_filters
from drainer.config import load as config_file
from drainer.config.host import split_host, split_server
from drainer.errors import DrainerError, UsageError
from drainer.ledger import engine
from drainer.ledger.filters import Filters
from drainer.policy.classify.rules import rules_of
from drainer.policy.pacing.overrides import OverrideKind
from drainer.policy.pacing.rate import parse_rate, parse_size
from drainer.runtime.units import parse_duration
from drainer.sources.registry import open_source
from drainer.watch.http.operator_routes import duration_of, order_of, rate_of, reason_of
from drainer.watch.http.payloads import BodyError, read_body
from tests.fuzz.target import Run, Target, stateless

_RULE = b"""[[rule]]
id = "a-b"
permanent = "bounce"
contains = ["mailbox full"]
why = "x"
"""
_ALERT = b'{"status": "firing", "alerts": [{"status": "firing", "labels": {}}]}'
_BEAT = b'{"heartbeat": {"status": 1}, "msg": "x"}'
_ORDER = b'{"reason": "x", "for": "10m", "rate": "5/second"}'
_SETTINGS = b"""[primary]
host = "mx.example.org"
port = 25
domains = ["example.org"]
[throttle]
rate = "20/second"
[retry]
first = "5m"
[breaker]
pauses = ["1m", "2m"]
[sources.old]
url = "maildir:/x"
"""


def targets() -> Iterator[Target]:
    """Yield the targets."""
    words = (b"s", b"MB", b"/second", b"1h30m", b".", b"e9", "\u0661".encode())
    yield stateless("quantities", quantities, [b"1h30m", b"5MB", b"20/second"], *words)
    hosts = [b"mx.example.org:25", b"[::1]:25", b"192.0.2.1"]
    yield stateless("hosts and URLs", places, hosts, b":", b"[", b"]", b"@", b"?ack=")
    yield stateless("rules", rules, [_RULE], b"(?=", b"*+", b"[[rule]]", b"''")
    yield stateless(
        "hooks", hooks, [_ALERT, _BEAT, _ORDER], b'"status":', b"null", b"9"
    )
    yield Target(name="settings", prepare=settings, seeds=[_SETTINGS], tokens=words)


def quantities(data: bytes) -> None:
    """Read a quantity, and a filter that holds one: a value or a UsageError."""
    text = data.decode("utf-8", "surrogateescape")
    readers: tuple[Callable[[str], object], ...] = (
        parse_duration,
        parse_size,
        parse_rate,
        lambda each: parse_rate(each, sized=True),
    )
    for read in readers:
        with suppress(ValueError):
            read(text)
    for option in ("older_than", "newer_than", "larger_than", "smaller_than"):
        with suppress(UsageError):
            _filters(**{option: text})


@with_filters
def _chosen(*, filters: Filters) -> Filters:
    return filters


def _filters(**given: str) -> Filters:
    usual = dict.fromkeys(
        ("sender", "recipient", "domain", "older_than", "newer_than", "larger_than",
         "smaller_than", "ids_file", "reply"), "")  # fmt: skip
    found: Filters = _chosen(
        **{"state": [], "queue": [], "exclude": []} | usual | given
    )
    found.clauses()
    return found


def places(data: bytes) -> None:
    """Read a host, a source and the URL of a ledger; no folder is called like these."""
    text = data.decode("utf-8", "surrogateescape").replace("\0", "")
    base = Path("/nonexistent")
    with suppress(UsageError):
        assert split_server(f"unix:/{text}")[0].isprintable()
    with suppress(UsageError):
        host, port = split_host(text)
        assert host.isascii()
        assert port is None or 0 < port < 65536
    with suppress(DrainerError):
        open_source(text.lstrip("/."), options={}, base=base)
    with suppress(DrainerError):
        engine.parse_url(text)


def rules(data: bytes) -> None:
    """Read a file of rules."""
    with suppress(ValueError):
        found = tomllib.loads(data.decode()).get("rule", [])
        if isinstance(found, list) and all(isinstance(each, dict) for each in found):
            rules_of(found)


def hooks(data: bytes) -> None:
    """Read what comes by HTTP: a meaning or a BodyError, an order or a ValueError."""
    for url in (OverrideKind.UP, OverrideKind.DOWN):
        with suppress(BodyError):
            meaning = read_body(data, url)
            assert meaning.ask in (None, url)
            assert meaning.words.isprintable()
    with suppress(ValueError):
        order = order_of(data)
        for read in (reason_of, duration_of, rate_of):
            with suppress(ValueError):
                read(order)


def settings(folder: Path) -> Run:
    """Read a configuration."""
    path = folder / "drainer.toml"

    def run(data: bytes) -> None:
        path.write_bytes(data)
        with suppress(UsageError):
            config_file.load(path, {})

    return run
