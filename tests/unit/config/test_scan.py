"""[scan.NAME]: where a scanner is, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from drainer.config.load import load
from drainer.config.scan import ScannerSection
from drainer.errors import UsageError


@pytest.mark.parametrize(
    ("keys", "place", "holds"),
    [
        ({"protocol": "rspamd"}, "127.0.0.1:11333", ("reject",)),
        ({"protocol": "spamd"}, "127.0.0.1:783", ("*",)),
        ({"protocol": "spamd", "score": 8}, "127.0.0.1:783", ()),
        ({"protocol": "clamd"}, "unix:/run/clamav/clamd.ctl", ("*",)),
        ({"protocol": "clamd", "address": "av.example"}, "av.example:3310", ("*",)),
        ({"protocol": "rspamd", "address": "[::1]:9"}, "[::1]:9", ("reject",)),
        ({"protocol": "spamd", "address": "unix:/run/s"}, "unix:/run/s", ("*",)),
        ({"protocol": "command", "command": ["check"]}, "", ("*",)),
        ({"protocol": "clamd", "hold": []}, "unix:/run/clamav/clamd.ctl", ()),
    ],
)
def test_defaults_depend_on_the_protocol(
    keys: dict[str, Any], place: str, holds: tuple[str, ...]
) -> None:
    """Each listens where Debian's package does; softer actions hold nothing."""
    section = ScannerSection(**keys)
    assert section.place == place
    assert section.holds == holds


@pytest.mark.parametrize(
    ("keys", "limit"),
    [
        ({"protocol": "spamd"}, 500_000),
        ({"protocol": "clamd"}, 25_000_000),
        ({"protocol": "spamd", "max_size": "2MB"}, 2_000_000),
    ],
)
def test_how_large_a_message_may_be(keys: dict[str, Any], limit: int) -> None:
    """What spamc and clamd take by default."""
    assert ScannerSection(**keys).max_bytes == limit


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[scan.av]\nprotocol = "icap"', "protocol"),
        ("[scan.av]\n", "protocol"),
        ('[scan.av]\nprotocol = "clamd"\nadress = "x"', "unknown key"),
        ('[scan.av]\nprotocol = "clamd"\naddress = "a b"', "not a valid host"),
        ('[scan.av]\nprotocol = "clamd"\naddress = "unix:clamd"', "Unix socket"),
        ('[scan.av]\nprotocol = "clamd"\nmax_size = "big"', "not a size"),
        ('[scan.av]\nprotocol = "clamd"\nconcurrency = 0', "concurrency"),
        ('[scan.av]\nprotocol = "clamd"\ncommand = ["x"]', "goes with"),
        ('[scan.av]\nprotocol = "command"', "goes with"),
        ('[scan.av]\nprotocol = "spamd"\nprofile = "a\\r\\nb"', "one word"),
        ('[scan.av]\nprotocol = "rspamd"\nhold = "reject"', "hold: write a list"),
        ('[scan."A V"]\nprotocol = "clamd"', "not a name"),
    ],
)
def test_what_is_refused_names_the_key(tmp_path: Path, text: str, words: str) -> None:
    """In the words of the file."""
    path = tmp_path / "drainer.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(UsageError, match=words):
        load(path, {})
