"""Secrets are shown nowhere: by no command, error, file, trace or process list."""

import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus

import pytest

from drainer.errors import DrainerError, UsageError
from drainer.runtime.databases import parse, plain, safe_url
from drainer.runtime.redaction import is_secret, redact, redact_all, redact_url
from tests.support.command.processes import tree
from tests.support.command.runner import Bench, call

SECRET: Final = "s3cr3t"  # noqa: S105 - of nothing


# ---- the one function

PASSWORDS: Final = (
    "s3cr3t", "s3cr3t@x", "x@s3cr3t", "s3/cr3t", "12/s3cr3t", "s3%cr3t", "my s3cr3t",
    "s3cr3t?x", "x#s3cr3t", "s3cr3t:x", "s\u00e9s3cr3t\u4e2d", "'s3cr3t'", "@s3cr3t@",
)  # fmt: skip


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_password_before_the_host_is_hidden(password: str) -> None:
    """Whatever is in it, quoted or not; user and host are still readable."""
    for written in (password, quote(password, safe="")):
        for rest in ("h/d", "[::1]:5432/d", "h:1/d?a=b", "h"):
            for user in ("bob", ""):
                url = f"postgresql://{user}:{written}@{rest}"
                assert redact_url(url) == f"postgresql://{user}:***@{rest}"
            bare = f"bob:{written}@{rest}"
            assert redact_url(bare) == f"bob:***@{rest}"


@pytest.mark.parametrize(
    "name",
    ["password", "Passwd", "sslpassword", "token", "access_token", "api_key", "apikey",
     "client-secret", "key", "p%61ssword", "%70assword", "pass", "sig", "X-Auth"],
)  # fmt: skip
def test_a_secret_parameter_is_hidden(name: str) -> None:
    """Up to the next one, however its name and its value are written."""
    for password in PASSWORDS:
        for written in (password, quote_plus(password), quote(password, safe="")):
            for before in ("?", "?a=b&", ";", "?a=b;", "?a=b;c&d="):
                url = f"postgresql://h/d{before}{name}={written}"
                assert redact_url(url) == f"postgresql://h/d{before}{name}=***"
                more = redact_url(f"{url}&x=y")
                assert more == f"postgresql://h/d{before}{name}=***&x=y"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:4318/v1/traces",
        "postgresql://bob@h:5432/d?sslkey=/etc/k.pem&sslmode=require&passfile=/x",
        "maildir:/var/mail/bob@example.org",
        "postfix:/var/spool/postfix?queues=hold",
        "sqlite:////var/lib/spool.db?password_file=/etc/x",
        "https://h:80/a?page=2&tokens_file=/x",
        "localhost:25",
    ],
)
def test_what_holds_no_secret_is_shown_as_it_is(url: str) -> None:
    """Paths of keys and of password files are no secrets."""
    assert redact_url(url) == url
    assert redact(f"cannot open {url}: refused") == f"cannot open {url}: refused"


@pytest.mark.parametrize(
    "text",
    [
        "could not parse 'postgresql://u:s3cr3t@h/d'",
        "no ledger at postgresql://u:my s3cr3t@h/d, try again",
        "two: http://h:80/x and mysql://u:s3cr3t@h/d",
        "connection to h?password=s3cr3t failed",
        "HTTPConnectionPool(host='h'): url: /v1/traces?api_key=s3cr3t (refused)",
        "invalid dsn: host=h user=u password=s3cr3t dbname=d",
        "invalid dsn: host=h password='my s3cr3t' dbname=d",
    ],
)
def test_an_error_never_quotes_a_secret(text: str) -> None:
    """Neither in its words nor in its hint."""
    error = DrainerError(text, hint=text)
    assert SECRET not in f"{error}{error.hint}"
    assert "h" in str(error)


def test_a_long_hostile_text_costs_little() -> None:
    """A reply may be made of what the patterns look for."""
    text = "http://a:" * 3000 + "?password" * 3000
    started = time.process_time()
    redact(text)
    redact_url(text)
    assert time.process_time() - started < 5


def test_keys_that_hold_secrets_are_known_by_name() -> None:
    """At any depth."""
    facts = {
        "sources": {"a": {"url": "x://u:s3cr3t@h", "options": [{"password": SECRET}]}},
        "hook": {"token": SECRET, "token_file": "/etc/token"},
    }
    assert redact_all(facts) == {
        "sources": {"a": {"url": "x://u:***@h", "options": [{"password": "***"}]}},
        "hook": {"token": "***", "token_file": "/etc/token"},
    }
    assert is_secret("sslpassword")
    assert not is_secret("sslkey")


def test_what_the_ledger_stores_of_a_database_has_no_query() -> None:
    """It names a source, and a password in it would have to change with it."""
    url = parse("postgresql://u:s3cr3t@h/d?password=s3cr3t&sslpassword=s3cr3t")
    assert plain(url) == "postgresql://u@h/d"
    assert SECRET not in safe_url(url)
    with pytest.raises(UsageError) as raised:
        parse("postgresql://u:s3cr3t@h:port/d")
    assert SECRET not in str(raised.value)


# ---- the commands

URLS: Final[Mapping[str, str]] = {
    "user": "postgresql://u:s3cr3t@127.0.0.1:1/d",
    "query": "postgresql://u@127.0.0.1:1/d?password=s3cr3t",
    "percent": "postgresql://u:s3cr3t%40x%2Fy@127.0.0.1:1/d",
    "at and slash": "postgresql://u:s3cr3t@x/y@127.0.0.1:1/d",
    "no port": "postgresql://u:s3cr3t@127.0.0.1:port/d",
    "ssl": "postgresql://u@127.0.0.1:1/d?sslpassword=s3cr3t&sslkey=/nonexistent",
    "mysql": "mysql://u:s3cr3t@127.0.0.1:1/d?ssl_key=/x",
    "an option of none": "postgresql://u@127.0.0.1:1/d?passwd=s3cr3t",
    "unknown driver": "postgresql+nothing://u:s3cr3t@127.0.0.1:1/d",
    "unknown kind": "nothing://u:s3cr3t@127.0.0.1:1/d",
    "unknown option": "postgresql://u@127.0.0.1:1/d?secret_token=s3cr3t",
}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Give a spool with one message, and a primary that is not there."""
    monkeypatch.chdir(tmp_path)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        made = Bench(root=tmp_path, port=listener.getsockname()[1])
    made.add("anna@example.org")
    return made


def said_by(bench: Bench, *args: str | Path) -> str:
    """Return all that a command prints."""
    result = bench.run(*args)
    return f"{result.stdout}{result.stderr}"


@pytest.mark.parametrize("name", URLS)
def test_no_command_shows_the_password_of_a_database(bench: Bench, name: str) -> None:
    """Of a source, or of the ledger; reachable or not, readable or not."""
    url = URLS[name]
    bench.configure(**{"sources.a": {"url": url}})
    for args in (["config"], ["config", "--json"], ["inspect", "a"], ["plan", "a"]):
        assert SECRET not in said_by(bench, *args)
    for args in (["status"], ["config"], ["drain", f"postfix:{bench.spool}"]):
        result = bench.run(*args, "--ledger", url)
        assert SECRET not in f"{result.stdout}{result.stderr}"


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        ("telemetry", {"endpoint": "http://u:s3cr3t@h/v1"}),
        ("telemetry", {"endpoint": "http://h/v1?token=s3cr3t"}),
        ("throttle", {"load_command": "false http://u:s3cr3t@h:9090/?token=s3cr3t"}),
        ("bounce", {"via": "u:s3cr3t@relay.example"}),
        ("bounce", {"via": "smtp://u:s3cr3t@relay.example:25"}),
        ("primary", {"host": "smtp://u:s3cr3t@mx.example"}),
        ("primary", {"username": "u", "password": "s3cr3t"}),
        ("primary", {"username": "u", "password": ["s3cr3t"]}),
        ("hook", {"token": "s3cr3ts3cr3ts3cr3t", "hmac": "s3cr3ts3cr3ts3cr3t"}),
    ],
)
def test_no_command_shows_a_secret_of_the_configuration(
    bench: Bench, section: str, keys: dict[str, object]
) -> None:
    """Whether the value is right or wrong."""
    bench.configure(**{section: keys})
    source = f"postfix:{bench.spool}"
    for args in (
        ["config"], ["config", "--json"], ["check"], ["drain", source, "--no-check"],
        ["plan", source], ["status"], ["doctor", "--help"],
    ):  # fmt: skip
        assert SECRET not in said_by(bench, *args), args


@pytest.mark.parametrize("value", ["12345", "1.25", "true", '["12345"]'])
def test_a_password_of_the_wrong_type_is_not_quoted(bench: Bench, value: str) -> None:
    """The error names the line and the key."""
    config = bench.config
    text = config.read_text("utf-8") + f"\n[hook]\ntoken = {value}\n"
    config.write_text(text, "utf-8")
    result = bench.run("status")
    assert "12345" not in result.stderr
    assert "1.25" not in result.stderr


@pytest.fixture
def closed() -> Iterator[int]:
    """Give a port where nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener.getsockname()[1]


def test_neither_ledger_nor_files_hold_the_secret_of_an_endpoint(
    bench: Bench, closed: int
) -> None:
    """The name of a cursor and of its lock are made of it."""
    secret = f"http://u:s3cr3t@127.0.0.1:{closed}/v1?token=s3cr3t"
    bench.configure(telemetry={"traces": "otlp", "endpoint": secret})
    config = bench.config
    run = bench.start("drain", f"postfix:{bench.spool}", "--no-check", fresh=True)
    seen = "".join(map(_command_line, tree(run.pid)))
    out, err = run.communicate(timeout=60)
    config.unlink()
    assert SECRET not in out + err + seen
    found = list(bench.root.rglob("*"))
    assert [path for path in found if SECRET in path.name] == []
    files = [path for path in found if path.is_file()]
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text("utf-8")
    except OSError:
        return ""


def test_the_environment_of_a_child_has_no_secret(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password may come by it."""
    monkeypatch.setenv("DRAINER_PRIMARY__PASSWORD", SECRET)
    assert SECRET not in said_by(bench, "config", "--json")
    assert os.environ["DRAINER_PRIMARY__PASSWORD"] == SECRET


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o604, 0o602])
def test_a_password_file_that_others_can_read_is_a_warning(
    tmp_path: Path, mode: int
) -> None:
    """Said once, with the command that repairs it; the check goes on."""
    place = tmp_path / "password"
    place.write_text(SECRET + "\n")
    place.chmod(mode)
    bench = Bench(tmp_path, 1)
    bench.configure(
        primary={"username": "me", "password_file": str(place), "tls": "required"}
    )
    done = call("check", "--config", bench.config)
    assert done.code == 3
    warnings = [line for line in done.stderr.splitlines() if "chmod o=" in line]
    assert len(warnings) == (1 if mode & 0o007 else 0)
    assert SECRET not in done.stderr
