"""What the recipes promise about spools of other systems works."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from drainer.config import Config
from tests.deploy import DOCS
from tests.deploy.commands import lines_of, parses
from tests.support.command.runner import Bench, call
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import per_recipient

RECIPES: Final = (DOCS / "recipes.md").read_text("utf-8")

SES: Final = """\
Return-Path: <bounces@sender.example>
Received: from mail.sender.example (mail.sender.example [192.0.2.7])
 by inbound-smtp.us-east-1.amazonaws.com with SMTP id d6iitobk75ur44p8kdnnp7g2n800
 for anna@example.org;
 Fri, 11 Sep 2026 20:32:33 +0000 (UTC)
X-SES-Spam-Verdict: PASS
X-SES-Virus-Verdict: PASS
Received: from inside by mail.sender.example for <other@sender.example>; Fri, 11 Sep
From: somebody@sender.example
To: everybody@example.net
Subject: hello

body
"""
REPLAY: Final = """\
X-Sender: <s+tag@sender.example> BODY=8bitmime
X-Receiver: <anna@example.org>
 ORCPT=rfc822;anna@example.org NOTIFY=NEVER;
 X-ExtendedProps=DwA1AAAATWljcm9z
X-Receiver: <ben@example.org> ORCPT=rfc822;ben@example.org
X-CreatedBy: MSExchange15
X-HeloDomain: mail.sender.example
X-SourceIPAddress: 192.0.2.7
X-EndOfInjectedXHeaders: 8218
Received: from mail.sender.example by mx.example.org; Fri, 11 Sep 2026 20:32:33 +0000
Subject: hello
X-Receiver: <nobody@example.org>

body
"""


def commands() -> list[str]:
    """Return the commands of ours in the code blocks, and in the text."""
    inline = re.findall(r"`(drainer [^`]+)`", RECIPES)
    return sorted({*lines_of(RECIPES), *inline})


@pytest.mark.parametrize("line", commands())
def test_every_command_of_the_recipes_is_one(line: str) -> None:
    """With its options and arguments."""
    parses(shlex.split(line))


def test_every_key_of_the_configuration_that_the_recipes_name_exists() -> None:
    """As `[section] key`."""
    named = re.findall(r"`\[(\w+)\] (\w+)`", RECIPES)
    assert named
    for section, key in named:
        fields = Config.model_fields[section].annotation
        assert key in getattr(fields, "model_fields", {}), f"[{section}] {key}"


def test_a_drained_copy_settles_its_original(
    tmp_path: Path, peer: Callable[..., PeerThread]
) -> None:
    """Step 5: nothing is sent, and the original has only what is left, on hold."""
    anna, ben = "anna@example.org", "ben@example.org"
    primary = peer(rcpt=per_recipient({ben: "450 4.2.1 busy"}))
    bench = Bench(tmp_path, primary.port)
    bench.add(anna)
    left = bench.add(ben)
    shutil.copytree(bench.spool, tmp_path / "copy")
    done = bench.run("drain", f"postfix:{tmp_path}/copy", "--no-check")
    assert done.code in {4, 5}
    sent = len(primary.accepted)
    assert sent == 1
    assert "drainer spool settle postfix:" in RECIPES
    assert bench.run("spool", "settle", f"postfix:{bench.spool}").code == 0
    assert len(primary.accepted) == sent
    files = [p for p in bench.spool.rglob("*") if p.is_file()]
    assert [(p.parent.name, p.name) for p in files] == [("hold", left)]


def listed(url: str) -> list[dict[str, object]]:
    """Return what `inspect` lists."""
    done = call("inspect", url, "--json")
    assert done.code == 0, done.stderr
    found: list[dict[str, object]] = done.lines
    return found


def test_objects_of_ses_have_their_envelope(tmp_path: Path) -> None:
    """The sender of Return-Path, and the recipient that SES itself noted."""
    (tmp_path / "d6iitobk75ur.eml").write_text(SES, "utf-8")
    host = re.findall(r"backup_host=([\w.-]+)", RECIPES)[0]
    (message,) = listed(f"eml:{tmp_path}?backup_host={host}")
    assert message["reverse_path"] == "bounces@sender.example"
    assert [r["forward_path"] for r in message["recipients"]] == ["anna@example.org"]  # type: ignore[attr-defined]
    assert message["problem"] is None


def test_an_object_of_ses_without_a_recipient_is_held(tmp_path: Path) -> None:
    """The recipient is not guessed from To."""
    text = SES.replace(" for anna@example.org;", " ;")
    (tmp_path / "x.eml").write_text(text, "utf-8")
    host = re.findall(r"backup_host=([\w.-]+)", RECIPES)[0]
    (message,) = listed(f"eml:{tmp_path}?backup_host={host}")
    assert message["problem"]["code"] == "no-envelope"  # type: ignore[index]


def test_the_script_for_exchange_moves_the_envelope_into_sidecars(
    tmp_path: Path,
) -> None:
    """All recipients, nothing of Exchange's own fields, and the mail unchanged."""
    (script,) = re.findall(
        r"<!-- exchange -->\n```python\n(.*?)^```", RECIPES, re.DOTALL | re.MULTILINE
    )
    (tmp_path / "one.eml").write_text(REPLAY.replace("\n", "\r\n"), newline="")
    (tmp_path / "other.eml").write_text("Subject: x\r\n\r\nX-Sender: <a@b.example>\r\n")
    for _ in range(2):  # a second run must not spoil what the first one did
        subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=60
        )
    first, other = sorted(listed(f"eml:{tmp_path}"), key=lambda m: str(m["native_id"]))
    assert first["reverse_path"] == "s+tag@sender.example"
    paths = [r["forward_path"] for r in first["recipients"]]  # type: ignore[attr-defined]
    assert paths == ["anna@example.org", "ben@example.org"]
    assert first["problem"] is None
    rest = REPLAY.partition("X-EndOfInjectedXHeaders: 8218\n")[2]
    assert (tmp_path / "one.eml").read_bytes() == rest.replace("\n", "\r\n").encode()
    assert first["size"] == len(rest.replace("\n", "\r\n"))
    assert json.loads((tmp_path / "one.json").read_text())["whole"] is True
    assert other["problem"]["code"] == "no-envelope"  # type: ignore[index]
