"""A single job describes its primary by flags, without a configuration file."""

from collections.abc import Callable
from pathlib import Path

from tests.support.command.installed import Drainer, write_maildir
from tests.support.smtp_peer.peer import PeerThread


def test_flags_take_the_place_of_a_configuration(
    tmp_path: Path, peer: Callable[..., PeerThread]
) -> None:
    """`--accept` is asked for by the check, `--domains` limits what is sent."""
    write_maildir(tmp_path / "mail", 2)
    primary = peer()
    drainer = Drainer(tmp_path / "ledger.db")
    flags = (
        "--accept",
        "good@example.org",
        "--domains",
        "other.example, third.example",
    )
    to = ("--to", f"127.0.0.1:{primary.port}", "--tls", "off")
    checked = drainer.run("check", *to, *flags, "--json").objects[0]
    stages = {each["stage"]: each["verdict"] for each in checked["stages"]}
    assert stages["rcpt good@example.org"] == "ok"
    source = f"maildir:{tmp_path}/mail"
    plan = drainer.run("plan", source, *to, *flags, "--json").objects[0]
    assert plan["held"] == {"not-for-this-primary": 2}
    result = drainer.run("drain", source, *to, *flags, "--json")
    assert result.code == 5, result.stderr
    assert primary.accepted == []
    assert set(drainer.states().values()) == {"held"}


def test_a_login_by_flags_needs_a_file_for_the_password(
    tmp_path: Path, peer: Callable[..., PeerThread]
) -> None:
    """The password itself is no flag: others would see it."""
    primary = peer()
    drainer = Drainer(tmp_path / "ledger.db")
    to = ("--to", f"127.0.0.1:{primary.port}")
    refused = drainer.run("check", *to, "--username", "backup")
    assert refused.code == 2
    assert "password" in refused.stderr
    secret = tmp_path / "secret"
    secret.write_text("x\n")
    secret.chmod(0o600)
    login = ("--username", "backup", "--password-file", str(secret))
    checked = drainer.run("check", *to, *login)
    assert checked.code == 3, "a password needs TLS, which this peer does not offer"
    assert primary.logins == []


def test_an_invalid_value_names_its_flag(tmp_path: Path) -> None:
    """Exit status 2."""
    drainer = Drainer(tmp_path / "ledger.db")
    refused = drainer.run("check", "--to", "127.0.0.1", "--tls", "perhaps")
    assert refused.code == 2
    assert "--tls" in refused.stderr
    refused = drainer.run("check", "--to", "127.0.0.1", "--accept", "nobody@")
    assert refused.code == 2
    assert "--accept" in refused.stderr
