"""The configuration: errors that point at the line, the environment, and secrets."""

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest

from drainer.config import Config
from drainer.config import load as config_file
from drainer.config.build.routes import make_route
from drainer.config.host import split_host
from drainer.config.render import render_toml, sections
from drainer.delivery.build import build_settings
from drainer.errors import UsageError
from tests.support.command.runner import call, toml

SETTINGS = {"primary": {"host": "mx1.example.com"}}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an empty current folder in which a test may write drainer.toml."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(place: Path, text: str) -> Path:
    """Write a file and return it."""
    path = place / "drainer.toml"
    path.write_text(text, "utf-8")
    return path


def refusal(place: Path, text: str) -> str:
    """Return how a configuration is refused."""
    with pytest.raises(UsageError) as caught:
        config_file.load(written(place, text), {})
    return str(caught.value)


# ---- errors in the file


WRONG: dict[str, tuple[str, int, list[str]]] = {
    # name: (text, line, what the message says)
    "unknown key": (
        "[primary]\nhost = 'x'\nhots = 'y'\n",
        3,
        ["primary.hots", "unknown key", "legal here: ", "connections", "helo"],
    ),
    "unknown section": (
        "[primry]\nhost = 'x'\n",
        1,
        ["primry", "unknown key", "legal here: ", "primary", "throttle"],
    ),
    "bad unit": (
        "[retry]\nfirst = '5 parsecs'\n",
        2,
        ["retry.first", "5 parsecs", "write e.g. 90s, 10m, 1h, 5d"],
    ),
    "a duration without a unit": (
        "[retry]\n\nmax = 60\n",
        3,
        ["retry.max", "60", "write e.g. 90s"],
    ),
    "a duration beyond all time": (
        "[breaker]\ngive_up_after = '99999999999999d'\n",
        2,
        ["breaker.give_up_after", "write e.g."],
    ),
    "a port too high": (
        "[primary]\nport = 70000\n",
        2,
        ["primary.port", "65535", "70000"],
    ),
    "a port of zero": ("[primary]\nport = 0\n", 2, ["primary.port", "1"]),
    "a word where a number belongs": (
        "[primary]\nconnections = 'many'\n",
        2,
        ["primary.connections", "many"],
    ),
    "no connections": ("[primary]\nconnections = 0\n", 2, ["primary.connections"]),
    "an unknown choice": (
        "[primary]\ntls = 'maybe'\n",
        2,
        [
            "primary.tls",
            "'off', 'opportunistic', 'required', 'implicit' or 'dane'",
            "maybe",
        ],
    ),
    "a rate": (
        "[throttle]\n# slowly\nrate = 'fast'\n",
        3,
        ["throttle.rate", "fast", "20/second"],
    ),
    "a rate of nothing": ("[throttle]\nrate = '0/second'\n", 2, ["throttle.rate"]),
    "a command without an end": (
        '[throttle]\nload_command = "load \'x"\n',
        2,
        ["throttle.load_command", "no closing quotation"],
    ),
    "a rate of connections": (
        "[throttle]\nnew_connections = '5'\n",
        2,
        ["throttle.new_connections", "20/second"],
    ),
    "a rate of octets": ("[throttle]\nbytes = '5/day'\n", 2, ["throttle.bytes", "5MB"]),
    "a jitter": ("[retry]\njitter = 1.5\n", 2, ["retry.jitter", "0.9"]),
    "no pauses": ("[breaker]\npauses = []\n", 2, ["breaker.pauses"]),
    "one bad pause of many": (
        "[breaker]\npauses = ['1m', '2x']\n",
        2,
        ["breaker.pauses", "2x"],
    ),
    "an address": (
        "[health]\naccept = ['not an address']\n",
        2,
        ["health.accept", "not an address"],
    ),
    "an exporter": (
        "[telemetry]\ntraces = 'carrier pigeon'\n",
        2,
        ["telemetry.traces", "off, console, otlp, file:PATH"],
    ),
    "a helo": ("[primary]\nhelo = 'a b'\n", 2, ["primary.helo", "host name"]),
    "a key that begins like another": (
        "[primary]\npassword_file = 'x'\npassword = 5\n",
        3,
        ["primary.password"],
    ),
    "a source without a URL": (
        "[sources.old]\nfolders = ['x']\n",
        2,
        ["sources.old.url", "required"],
    ),
}


@pytest.mark.parametrize(("text", "line", "words"), WRONG.values(), ids=list(WRONG))
def test_an_error_names_file_line_key_and_what_is_legal(
    place: Path, text: str, line: int, words: list[str]
) -> None:
    """So that whoever wrote it finds it."""
    message = refusal(place, text)
    assert message.startswith(f"{place}/drainer.toml:{line}: "), message
    for word in words:
        assert word in message


CONTRADICTIONS: dict[str, tuple[str, list[str]]] = {
    "a burst over one second's worth": (
        "[throttle]\nrate = '10/second'\nburst = 11\n",
        ["throttle", "a burst of 11", "legal is 1 to 10"],
    ),
    "a login in the clear": (
        "[primary]\nusername = 'x'\npassword = 'y'\ntls = 'off'\n",
        ["primary", 'tls = "off"', "unencrypted"],
    ),
    "a login without a password": (
        "[primary]\nusername = 'x'\n",
        ["primary", "password_file", "DRAINER_PRIMARY__PASSWORD"],
    ),
    "a relay's login in the clear": (
        "[bounce]\nvia_username = 'x'\nvia_password = 'y'\nvia_tls = 'off'\n",
        ["bounce", 'tls = "off"', "unencrypted"],
    ),
    "a relay's login without a password": (
        "[bounce]\nvia_username = 'x'\n",
        ["bounce", "via_password_file", "DRAINER_BOUNCE__VIA_PASSWORD"],
    ),
    "a login at the servers of any sender": (
        "[bounce]\nvia = 'mx'\nvia_username = 'x'\nvia_password = 'y'\n",
        ["bounce", 'via = "mx" names none'],
    ),
    "a first delay over the longest": (
        "[retry]\nfirst = '2h'\nmax = '1h'\n",
        ["retry", "first is longer than max"],
    ),
}


@pytest.mark.parametrize(
    ("text", "words"), CONTRADICTIONS.values(), ids=list(CONTRADICTIONS)
)
def test_a_contradiction_names_file_and_section(
    place: Path, text: str, words: list[str]
) -> None:
    """Two keys that cannot both hold: the section's line, and what to do."""
    message = refusal(place, text)
    assert message.startswith(f"{place}/drainer.toml:1: "), message
    for word in words:
        assert word in message


@pytest.mark.usefixtures("place")
def test_flags_that_contradict_each_other_are_no_flag_of_another_name() -> None:
    """No command but `doctor` has a flag --primary."""
    flags = {"primary": {"host": "a", "username": "u", "password": "p", "tls": "off"}}
    with pytest.raises(UsageError, match=r"^flags and environment: primary: username"):
        config_file.load(None, flags)


def test_every_error_is_reported_at_once(place: Path) -> None:
    """Nobody wants to mend one and be told of the next."""
    message = refusal(place, "[primary]\nport = 0\ntls = 'x'\n[retry]\nfirst = '1'\n")
    assert len(message.splitlines()) == 3


def test_a_secret_is_not_repeated_in_an_error(place: Path) -> None:
    """Even if the configuration is wrong elsewhere in its section."""
    text = "[primary]\nusername = 'x'\npassword = 'open sesame'\ntls = 'off'\n"
    assert "open sesame" not in refusal(place, text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[primary\n", "line 1"),
        ("[primary]\nhost = mx1\n", "line 2"),
        ("[primary]\nhost = 'a'\nhost = 'b'\n", "line 3"),
        ("primary = 5\n", "primary"),
        ("[[primary]]\nhost = 'a'\n", "primary"),
    ],
)
def test_what_is_no_toml_is_refused_with_its_line(
    place: Path, text: str, words: str
) -> None:
    """The parser's words, and the file's name."""
    message = refusal(place, text)
    assert "drainer.toml" in message
    assert words in message


def test_a_file_that_cannot_be_read_is_refused(place: Path) -> None:
    """Not UTF-8, a folder, or absent: exit 2 with the reason."""
    (place / "bad.toml").write_bytes(b"[primary]\nhost = '\xff'\n")
    (place / "folder.toml").mkdir()
    for name in ("bad.toml", "absent.toml", "folder.toml"):
        with pytest.raises(UsageError, match=name):
            config_file.load(place / name, {})


# ---- the environment and the flags


def test_every_key_may_come_from_the_environment(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DRAINER_SECTION__KEY wins over the file; lists are JSON."""
    path = written(place, "[primary]\nhost = 'a'\nport = 26\n[retry]\nfirst = '9s'\n")
    monkeypatch.setenv("DRAINER_PRIMARY__HOST", "b")
    monkeypatch.setenv("DRAINER_PRIMARY__DOMAINS", '["Example.ORG."]')
    monkeypatch.setenv("DRAINER_BREAKER__PAUSES", '["5s", "10s"]')
    monkeypatch.setenv("DRAINER_RETRY__JITTER", "0.5")
    config = config_file.load(path, {})
    assert (config.primary.host, config.primary.port) == ("b", 26)
    assert config.primary.domains == ("example.org",)
    assert config.breaker.pauses == (timedelta(seconds=5), timedelta(seconds=10))
    assert (config.retry.first, config.retry.jitter) == (timedelta(seconds=9), 0.5)


def test_a_flag_wins_over_the_environment_and_that_over_the_file(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what they do not say stays as it was."""
    path = written(place, "[primary]\nhost = 'a'\nport = 26\nhelo = 'me.example'\n")
    monkeypatch.setenv("DRAINER_PRIMARY__HOST", "b")
    config = config_file.load(path, {"primary": {"host": "c"}})
    assert config.primary.host == "c"
    assert (config.primary.port, config.primary.helo) == (26, "me.example")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DRAINER_PRIMARY__PORT", "abc", "primary.port"),
        ("DRAINER_PRIMARY__BOGUS", "1", "unknown key"),
        ("DRAINER_RETRY__FIRST", "soon", "retry.first"),
        ("DRAINER_THROTTLE__RATE", "fast", "throttle.rate"),
        ("drainer_primary__tls", "maybe", "primary.tls"),
    ],
)
def test_an_error_names_the_variable(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    """Not the file, which may say something sound."""
    path = written(place, "[primary]\nhost = 'a'\n")
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as caught:
        config_file.load(path, {})
    assert f"environment {name.upper()}" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DRAINER_PRIMARY__DOMAINS", "example.org"),
        ("DRAINER_BREAKER__PAUSES", "1m,2m"),
        ("DRAINER_PRIMARY", "mx1"),
    ],
)
def test_a_list_that_is_no_json_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """With the variable's name, not with a traceback."""
    del place
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=r"(?i)primary|pauses"):
        config_file.load(None, {})


def test_a_misspelt_section_in_the_environment_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown key is an error wherever it stands."""
    del place
    monkeypatch.setenv("DRAINER_PRIMRY__HOST", "mx1")
    with pytest.raises(UsageError, match="DRAINER_PRIMRY__HOST"):
        config_file.load(None, {})


# ---- where it lies, and what is in force


def test_none_is_needed(place: Path) -> None:
    """Every key has a default, and --to suffices."""
    del place
    config = config_file.load(None, {"primary": {"host": "mx1.example.com"}})
    assert str(make_route(config)) == "mx1.example.com:25"
    settings = build_settings(config, explicit=False, acknowledge=True)
    [route] = settings.routes
    assert route.connections == 5
    assert route.rates.messages is not None
    assert (route.rates.messages.per_second, route.rates.messages.burst) == (
        10,
        4,
    )


def test_the_one_in_the_current_folder_is_found(place: Path) -> None:
    """Without --config."""
    written(place, toml(SETTINGS))
    assert config_file.load(None, {}).primary.host == "mx1.example.com"


def test_the_file_that_init_writes_is_sound_and_changes_nothing(place: Path) -> None:
    """Every key stands in it, commented out, with its default."""
    path = written(place, render_toml())
    assert config_file.load(path, {}).model_dump() == Config().model_dump()
    every_key = [
        line.removeprefix("# ")
        for line in render_toml().partition("# [[routes")[0].splitlines()
        if line.startswith("[") or re.match(r"# [a-z_]+ = (?!\.\.\.)", line)
    ]
    text = "\n".join(every_key)
    known = config_file.load(written(place, text), {})
    assert known.model_dump() == Config().model_dump()
    for name, model in sections():
        for key in model.model_fields:
            assert f"# {key} = " in render_toml(), f"{name}.{key}"


def test_init_never_overwrites(place: Path) -> None:
    """Unless it is told to."""
    assert call("init").code == 0
    before = (place / "drainer.toml").read_bytes()
    assert (place / "drainer.toml").stat().st_mode & 0o777 == 0o600
    refused = call("init")
    assert refused.code == 2
    assert "exists" in refused.stderr
    assert "--force" in refused.stderr
    written(place, "# mine\n")
    assert call("init", "--force").code == 0
    assert (place / "drainer.toml").read_bytes() == before


@pytest.mark.parametrize("form", [["--json"], []], ids=["json", "text"])
def test_config_masks_every_secret(
    place: Path, monkeypatch: pytest.MonkeyPatch, form: list[str]
) -> None:
    """Passwords of the primary, the ledger and the sources."""
    text = """
[primary]
host = "mx1.example.com"
username = "drainer"
password = "open sesame"
[ledger]
url = "postgresql://me:hunter2@db.example/drainer"
[sources.old]
url = "postgresql://you:swordfish@db.example/spool"
password = "sausages"
"""
    monkeypatch.setenv("DRAINER_TELEMETRY__ENDPOINT", "https://u:tellme@otel.example/")
    result = call("config", "--config", written(place, text), *form)
    assert result.code == 0
    for secret in ("open sesame", "hunter2", "swordfish", "sausages", "tellme"):
        assert secret not in result.stdout + result.stderr
    assert "drainer" in result.stdout
    assert "db.example" in result.stdout


def test_config_prints_what_can_be_read_again(place: Path) -> None:
    """As JSON, and as TOML that loads to the same."""
    path = written(place, "[retry]\nfirst = '12345s'\nmax = '1000000s'\n")
    facts = json.loads(call("config", "--config", path, "--json").stdout)
    assert facts["retry"]["first"] == "12345s"
    printed = call("config", "--config", path).stdout
    kept = "\n".join(line for line in printed.splitlines() if "= null" not in line)
    again = written(place, kept.replace('"**********"', '""'))
    known = config_file.load(again, {})
    assert (
        known.retry
        == config_file.load(
            written(place, "[retry]\nfirst = '12345s'\nmax = '1000000s'\n"), {}
        ).retry
    )


# ---- the primary


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("mx1.example.com", "mx1.example.com", None),
        ("mx1.example.com:2525", "mx1.example.com", 2525),
        ("192.0.2.1", "192.0.2.1", None),
        ("192.0.2.1:25", "192.0.2.1", 25),
        ("[2001:db8::1]:25", "2001:db8::1", 25),
        ("[2001:db8::1]", "2001:db8::1", None),
        ("2001:db8::1", "2001:db8::1", None),
        ("::1", "::1", None),
        (" mx1 ", "mx1", None),
    ],
)
def test_a_primary_is_a_host_and_perhaps_a_port(
    text: str, host: str, port: int | None
) -> None:
    """IPv6 in brackets when a port follows."""
    assert split_host(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ":25", "mx1:", "mx1:0", "mx1:65536", "mx1:x", "mx1:-1", "mx1:²", "mx1:２５",  # noqa: E501, RUF001
        "mx 1", "mx1\n", "mx1\r\nHELO x", "mx1/25", "user@mx1", "smtp://mx1", "[::1", "[::1]25",  # noqa: E501
        "[mx1]:25", "-mx1", "mx1..example", "x" * 300,
    ],
)  # fmt: skip
def test_what_is_no_primary_says_how_to_write_one(text: str) -> None:
    """A wrong host or port is exit 2, before anything is opened."""
    if text == "mx1\n":
        assert split_host(text) == ("mx1", None)
        return
    with pytest.raises(UsageError) as caught:
        split_host(text)
    assert caught.value.hint == "write HOST, HOST:PORT or [IPv6]:PORT"


def test_a_username_makes_tls_required_and_verified() -> None:
    """A password never goes to a server whose name is not proven."""
    config = config_file.load(
        None, {"primary": {"host": "mx1", "username": "x", "password": "y"}}
    )
    route = make_route(config)
    assert (route.tls, route.verify) == ("required", True)
    assert "y" not in repr(route.login)


@pytest.mark.parametrize(("port", "tls"), [(25, "required"), (465, "implicit")])
def test_dane_requires_tls_and_asks_the_dns_servers(port: int, tls: str) -> None:
    """A login goes with it."""
    primary = {"host": "mx1", "port": port, "tls": "dane", "username": "x"}
    sections = {
        "primary": primary | {"password": "y"},
        "bounce": {"dns_servers": ["127.0.0.1"], "dns_port": 5353},
    }
    route = make_route(config_file.load(None, sections))
    assert route.tls == tls
    assert route.requires_tls
    assert route.dane is not None
    asked = route.dane.settings
    assert (asked.addresses, asked.port, asked.required) == (("127.0.0.1",), 5353, True)


@pytest.mark.parametrize(
    "keys",
    [{"tls": "off"}, {"verify": True}, {"tls_pin": ["00" * 32]}, {}],
)
def test_dns_is_asked_for_certificates_where_nothing_else_names_them(
    keys: dict[str, object],
) -> None:
    """A CA or a pin that is required goes before DANE."""
    route = make_route(config_file.load(None, {"primary": {"host": "mx1"} | keys}))
    assert (route.dane is None) == bool(keys)
    assert not route.requires_dane


def test_a_password_may_lie_in_a_file(place: Path) -> None:
    """Its first line; a file that is empty or absent is exit 2."""
    secret = place / "secret"
    overrides = {
        "primary": {"host": "mx1", "username": "x", "password_file": str(secret)}
    }
    with pytest.raises(UsageError, match="secret"):
        make_route(config_file.load(None, overrides))
    secret.write_text("\n")
    with pytest.raises(UsageError, match="is empty"):
        make_route(config_file.load(None, overrides))
    secret.write_text("open sesame\nmore\n")
    login = make_route(config_file.load(None, overrides)).login
    assert login is not None
    assert login.password == "open sesame"  # noqa: S105


@pytest.mark.parametrize(
    ("keys", "verify"),
    [
        ({}, True),
        ({"tls": "implicit"}, True),
        ({"tls": "opportunistic"}, False),
        ({"verify": False}, False),
    ],
)
def test_a_ca_is_named_to_verify_the_certificate(
    keys: dict[str, object], *, verify: bool
) -> None:
    """It would have no effect otherwise, and nobody would know."""
    config = config_file.load(None, {"primary": {"tls_ca": "ca.pem"} | keys})
    assert config.primary.verify is verify
