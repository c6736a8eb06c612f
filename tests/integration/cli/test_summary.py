"""The end of a drain names commands that can be pasted."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

from tests.support.command.installed import Drainer, write_maildir
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import per_recipient


def pasted(stdout: str) -> list[list[str]]:
    """Return the commands of drainer that an output has on lines of their own."""
    return [
        shlex.split(line)
        for line in re.findall(r"^  drainer (.*)$", stdout, re.MULTILINE)
    ]


def test_the_confirmation_of_refusals_can_be_pasted(
    tmp_path: Path, peer: Callable[..., PeerThread]
) -> None:
    """With the same primary and the same ledger, from any folder."""
    write_maildir(tmp_path / "mail", 3)
    primary = peer(rcpt=per_recipient({"user1@example.org": "550 5.1.1 no"}))
    drainer = Drainer(tmp_path / "a ledger.db")
    to = ("--to", f"127.0.0.1:{primary.port}", "--no-check", "--rate", "unlimited")
    done = drainer.run("drain", f"maildir:{tmp_path}/mail", *to)
    assert done.code == 5, done.stderr
    [command] = pasted(done.stdout)
    assert command[:2] == ["bounces", "run"]
    assert command[2:] == ["--to", to[1], "--ledger", str(drainer.ledger)]
    drainer.environment.pop("DRAINER_LEDGER__URL", None)
    again = drainer.run(*command, "--no-check", "--json")
    assert again.code == 5, again.stderr
    assert again.objects[-1]["recipients"]["bounce-pending"] == 1
    assert done.stdout.splitlines()[-1].endswith("what is finished has left it.")


def test_a_configuration_file_is_named_instead_of_the_primary(
    tmp_path: Path, peer: Callable[..., PeerThread]
) -> None:
    """It may hold what no option can say."""
    write_maildir(tmp_path / "mail", 3)
    primary = peer(rcpt=per_recipient({"user1@example.org": "550 5.1.1 no"}))
    file = tmp_path / "ours.toml"
    file.write_text(f'[primary]\nhost = "127.0.0.1"\nport = {primary.port}\n')
    drainer = Drainer(tmp_path / "ledger.db")
    source = f"maildir:{tmp_path}/mail?ack=keep"
    done = drainer.run("drain", source, "--config", file, "--no-check")
    assert done.code == 5, done.stderr
    ledger = ["--ledger", str(drainer.ledger)]
    [command] = pasted(done.stdout)
    assert command == ["bounces", "run", "--config", str(file), *ledger]
    assert "keeps its mail; the ledger knows what is delivered" in done.stdout
