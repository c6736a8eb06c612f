"""`config --check` names what a drain would stumble over; `config` can be read back."""

import json
import tomllib
from pathlib import Path

from tests.support.command.installed import write_maildir
from tests.support.command.runner import call

SOUND = """
[primary]
host = "mx1.example.com"
domains = ["example.org"]
username = "backup"
password_file = "{folder}/password"
[health]
accept = ["good@example.org"]
[ledger]
url = "{folder}/ledger.db"
[sources.mail]
url = "maildir:{folder}/mail"
ack = "keep"
[scan.own]
protocol = "command"
command = ["sh", "a b"]
score = 3
[scan.av]
protocol = "clamd"
"""


def laid_out(folder: Path, text: str = SOUND) -> Path:
    """Write a configuration, and what it names."""
    write_maildir(folder / "mail", 1)
    password = folder / "password"
    password.write_text("secret\n")
    password.chmod(0o600)
    path = folder / "drainer.toml"
    path.write_text(text.format(folder=folder))
    return path


def verdicts(path: Path, code: int) -> dict[str, str]:
    """Return the verdicts of a check by name."""
    done = call("config", "--config", path, "--check", "--json")
    assert done.code == code, done
    return {each["name"]: each["verdict"] for each in done.lines}


def test_a_sound_configuration_passes(tmp_path: Path) -> None:
    """Exit status 0; nothing is written."""
    path = laid_out(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert verdicts(path, 0) == {
        "[primary] host": "ok",
        "[primary] domains": "ok",
        "[primary] password_file": "ok",
        "[health] accept": "ok",
        "[scan.own]": "ok",
        "[scan.av]": "ok",
        "[sources.mail]": "ok",
        "[ledger]": "ok",
    }
    assert sorted(tmp_path.rglob("*")) == before
    assert "ok    [sources.mail]: maildir:" in call(
        "config", "--config", path, "--check"
    ).stdout  # fmt: skip


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """A source, a secret, a program, and a ledger that is none: exit status 2."""
    path = laid_out(tmp_path, SOUND.replace('"sh"', '"absent-program"'))
    (tmp_path / "mail").rename(tmp_path / "away")
    (tmp_path / "password").unlink()
    (tmp_path / "ledger.db").write_bytes(b"no database" * 100)
    found = verdicts(path, 2)
    for name in ("[sources.mail]", "[primary] password_file", "[scan.own]", "[ledger]"):
        assert found[name] == "fail"


def test_a_secret_that_others_can_read_is_a_warning(tmp_path: Path) -> None:
    """So are an empty host, no domains, and no known-good recipient."""
    path = laid_out(tmp_path)
    (tmp_path / "password").chmod(0o644)
    assert verdicts(path, 0)["[primary] password_file"] == "warn"
    path = laid_out(tmp_path, "[ledger]\nurl = '{folder}/ledger.db'\n")
    found = verdicts(path, 0)
    for name in ("[primary] host", "[primary] domains", "[health] accept"):
        assert found[name] == "warn"


def test_a_secret_of_the_hook_that_others_can_read_is_a_failure(tmp_path: Path) -> None:
    """The watch refuses it; the addresses of notifications are secret too."""
    files = "[hook]\ntoken_file = '{folder}/password'\n"
    files += "[notify]\nurls_file = '{folder}/password'\n"
    path = laid_out(tmp_path, files + "[ledger]\nurl = '{folder}/ledger.db'\n")
    (tmp_path / "password").chmod(0o604)
    found = verdicts(path, 2)
    assert found["[hook] token_file"] == "fail"
    assert found["[notify] urls_file"] == "warn"


def test_each_route_is_checked(tmp_path: Path) -> None:
    """Its hosts, its known-good recipients and its files, whatever [primary] has."""
    text = """
[[routes]]
domains = ["a.example"]
hosts = [["mx1", "mx2:26"]]
accept = ["good@a.example"]
tls_cert = "{folder}/absent.pem"
[[routes]]
domains = ["b.example"]
hosts = "mx"
[ledger]
url = '{folder}/ledger.db'
"""
    assert verdicts(laid_out(tmp_path, text), 2) == {
        "[primary] host of a.example": "fail",  # for its certificate
        "[primary] domains of a.example": "ok",
        "[health] accept of a.example": "ok",
        "[primary] host of b.example": "ok",
        "[primary] domains of b.example": "ok",
        "[health] accept of b.example": "warn",
        "[[routes]] a.example tls_cert": "fail",
        "[ledger]": "ok",
    }
    path = laid_out(tmp_path, '[primary]\nhosts = ["mx1", "mx2:26"]\n')
    shown = call("config", "--config", path, "--check").stdout
    assert "ok    [primary] host: mx1:25, mx2:26" in shown


def test_what_config_prints_is_valid_toml_without_secrets(tmp_path: Path) -> None:
    """With sources and scanners in tables of their own, and the file in a comment."""
    path = laid_out(tmp_path)
    printed = call("config", "--config", path).stdout
    assert printed.startswith(f"# file: {path}\n")
    known = tomllib.loads(printed)
    assert list(known["scan"]) == ["own", "av"]
    assert known["sources"]["mail"]["url"] == f"maildir:{tmp_path}/mail"
    again = tmp_path / "again.toml"
    again.write_text(printed)
    as_json = [call("config", "--config", p, "--json").stdout for p in (path, again)]
    assert json.loads(as_json[0]) == json.loads(as_json[1])


def test_the_routes_that_result_are_printed(tmp_path: Path) -> None:
    """In one line each, and which of them lack the login that [primary] has."""
    text = (
        '[primary]\nhost = "mx1"\nusername = "u"\npassword = "sekret"\n'
        '[[routes]]\ndomains = ["a.example"]\nhost = "mx2"\nrate = "3/second"\n'
        '[[routes]]\ndomains = ["b.example"]\nhost = "unix:/run/lmtp"\n'
    )
    path = laid_out(tmp_path, text)
    printed = call("config", "--config", path).stdout
    words = "no login (that of [primary] is for its own hosts), at most 5 connections"
    assert f"# route mx2:25 for a.example: SMTP, TLS opportunistic, {words}" in printed
    assert "# route unix:/run/lmtp for b.example: LMTP, no TLS, no login" in printed
    assert "# route mx1:25 for every other domain: SMTP, TLS required, login as u" in (
        printed
    )
    assert "sekret" not in printed
