"""From the [hook] section to a server that may be started."""

import sys
from pathlib import Path

import pytest

from drainer.config import load as config_file
from drainer.errors import UsageError
from drainer.watch.http.build import make_hook
from tests.support.web.http_server import OPERATOR, TOKEN


def test_secrets_are_read_from_private_files_only(tmp_path: Path) -> None:
    """What everybody can read is no secret; it says what to do."""
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\nanother line\n", "utf-8")
    facts = {"hook": {"listen": "[::1]:8025", "token_file": str(path)}}
    config = config_file.load(None, facts)
    for mode, refused in ((0o600, False), (0o640, False), (0o644, True), (0o602, True)):
        path.chmod(mode)
        if refused:
            with pytest.raises(UsageError, match="every user of this host"):
                make_hook(config)
            continue
        made = make_hook(config)
        assert made is not None
        assert (made.host, made.port, made.keys.token) == ("::1", 8025, TOKEN)
    path.chmod(0o600)
    path.write_text("short\n", "utf-8")
    with pytest.raises(UsageError, match="16 or more characters"):
        make_hook(config)


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP is an extra; it says how to have it."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    config = config_file.load(None, {"hook": {"listen": "127.0.0.1:8025"}})
    with pytest.raises(UsageError, match="absent: uvicorn") as caught:
        make_hook(config)
    assert caught.value.hint == "install drainer[hook]"


def test_without_listen_there_is_no_server() -> None:
    """Whatever else is set."""
    config = config_file.load(None, {"hook": {"token": TOKEN}})
    assert make_hook(config) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("listen", "8025"),
        ("listen", "example.org:8025"),
        ("listen", "127.0.0.1:99999"),
        ("listen", "999.0.0.1:80"),
        ("listen", "::1:8025"),
        ("listen", "[127.0.0.1]:8025"),
        ("names", ["http://x"]),
        ("rate", "unlimited"),
        ("rate", "often"),
        ("tls_cert", "/a.pem"),
    ],
)
def test_what_cannot_be_followed_is_refused(key: str, value: object) -> None:
    """With the name of the key."""
    words = f"hook.{key}|hook: set both tls_cert and tls_key"
    with pytest.raises(UsageError, match=words):
        config_file.load(None, {"hook": {key: value}})


def test_secrets_of_the_environment_are_masked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are in force, and `drainer config` does not show them."""
    monkeypatch.setenv("DRAINER_HOOK__LISTEN", "localhost:0")
    monkeypatch.setenv("DRAINER_HOOK__OPERATOR_TOKEN", OPERATOR)
    config = config_file.load(None, {})
    made = make_hook(config)
    assert made is not None
    assert (made.host, made.keys.operator) == ("127.0.0.1", OPERATOR)
    assert OPERATOR not in config.model_dump_json() + repr(made)
