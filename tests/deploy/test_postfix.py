"""The parts of main.cf for both ends, in real Postfix instances with real mail."""

import re
import shutil
import smtplib
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from tests.deploy import DEPLOY
from tests.support.mta import roles
from tests.support.mta.policy_server import Greylist
from tests.support.mta.postfix import (
    SEARCH_PATH,
    PrivatePostfix,
    free_port,
    instance_directory,
    missing_reason,
    wait_until,
)
from tests.support.mta.roles import Primary
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Script, per_recipient

BACKUP: Final = DEPLOY / "backup" / "postfix"
PRIMARY: Final = DEPLOY / "primary" / "postfix"
FORGED: Final = (
    "Authentication-Results: mx2.example.com; spf=pass smtp.mailfrom=bank.example\r\n"
    "Authentication-Results: (a comment)\r\n mx2.example.com;\r\n dkim=pass\r\n"
    "Authentication-Results: other.example; spf=fail\r\n"
    "Subject: hello\r\n\r\nbody\r\n"
)


def parameters(place: Path, replaced: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of a main.cf, with some words replaced."""
    text = place.read_text("utf-8")
    for old, new in replaced.items():
        text = text.replace(old, new)
    kept = "".join(
        line for line in text.splitlines(keepends=True) if not line.startswith("#")
    )
    found = {}
    for name, value in re.findall(r"^(\w+) =((?:.*\n[ \t]+)*.*)$", kept, re.MULTILINE):
        found[name] = " ".join(value.split())
    return found


def copied(folder: Path, base: Path, replaced: Mapping[str, str]) -> Path:
    """Return a copy of a folder's tables that the user postfix can read."""
    tables = base / "tables"
    shutil.copytree(folder, tables)
    for path in tables.iterdir():
        text = path.read_text("utf-8")
        for old, new in replaced.items():
            text = text.replace(old, new)
        path.write_text(text, "utf-8")
        path.chmod(0o644)
    return tables


@pytest.fixture(scope="module")
def stack() -> Iterator[ExitStack]:
    """Keep what runs, and end it."""
    if reason := missing_reason():
        pytest.skip(reason)
    with ExitStack() as kept:
        yield kept


@pytest.fixture(scope="module")
def backup(stack: ExitStack) -> PrivatePostfix:
    """Give a backup by deploy/, whose primary is down, without its milters."""
    base = stack.enter_context(instance_directory())
    tables = copied(BACKUP, base, {})
    names = {"/etc/postfix": str(tables), "smtpd_milters": "#", "queue_minfree": "#"}
    ours = parameters(BACKUP / "main.cf", names)
    ours |= {"mynetworks": "192.0.2.250/32", "relayhost": "[127.0.0.1]:9"}
    ours["smtpd_sender_restrictions"] = "reject_non_fqdn_sender"  # the other asks DNS
    instance = PrivatePostfix(base, hostname="mx2.example.com", parameters=ours)
    instance.add_master((BACKUP / "master.cf").read_text("utf-8"))
    return stack.enter_context(instance)


@pytest.fixture(scope="module")
def greylist(stack: ExitStack) -> Greylist:
    """Give a policy service that greylists whoever it is asked about."""
    return stack.enter_context(Greylist())


@pytest.fixture(scope="module")
def primary(stack: ExitStack, greylist: Greylist) -> Primary:
    """Give a primary by deploy/; the backup's address is the loopback one."""
    base = stack.enter_context(instance_directory())
    here = {"192.0.2.2/32": "127.0.0.1/32", "192.0.2.2": "127.0.0.1"}
    tables = copied(PRIMARY, base, here)
    names = {"/etc/postfix": str(tables), "unix:private/policy": greylist.place}
    ours = parameters(PRIMARY / "main.cf", here | names)
    users = "inline:{ {anna@example.com=all/} }"
    ours |= {"mynetworks": "192.0.2.250/32", "virtual_mailbox_maps": users}
    instance = roles.primary(base, domains=["example.com"], parameters=ours)
    return stack.enter_context(instance)


def rcpt(client: smtplib.SMTP, recipient: str) -> int:
    """Ask for one recipient in a transaction of its own."""
    client.ehlo_or_helo_if_needed()
    client.rset()
    client.mail("sender@example.org")
    return client.rcpt(recipient)[0]


def test_postfix_accepts_both(backup: PrivatePostfix, primary: Primary) -> None:
    """Every parameter exists, and every line of master.cf is one."""
    for instance in (backup, primary):
        assert instance.check() == ""


@pytest.mark.parametrize(
    ("recipient", "code"),
    [
        ("anna@example.com", 250),
        ("nobody@example.com", 550),
        ("anna@elsewhere.example", 554),
    ],
)
def test_the_backup_refuses_at_rcpt_what_it_could_not_deliver(
    backup: PrivatePostfix, recipient: str, code: int
) -> None:
    """So that it never has to make a bounce."""
    with smtplib.SMTP("127.0.0.1", backup.port) as client:
        assert rcpt(client, recipient) == code


def test_the_backup_removes_results_in_its_own_name(backup: PrivatePostfix) -> None:
    """Folded, and behind a comment; those of others stay."""
    before = set(backup.queue_files())
    with smtplib.SMTP("127.0.0.1", backup.port) as client:
        client.sendmail("sender@example.org", ["anna@example.com"], FORGED)
    files = backup.wait_queue(len(before) + 1)  # there it stays
    (place,) = set(files) - before
    text = backup.postcat(["-h", str(place)]).decode()
    assert "other.example" in text
    assert "mx2.example.com; spf" not in text
    assert "dkim=pass" not in text


def test_the_backup_keeps_mail_that_a_half_restored_primary_refuses(
    backup: PrivatePostfix, stack: ExitStack
) -> None:
    """Its 550 counts as temporary: nothing is bounced, and drainer can decide."""
    peer = stack.enter_context(PeerThread(Script(rcpt="550 5.1.1 no such user")))
    backup.set(relayhost=f"[127.0.0.1]:{peer.port}")
    backup.reload()
    try:
        with smtplib.SMTP("127.0.0.1", backup.port) as client:
            client.sendmail("kept@example.org", ["anna@example.com"], "Subject: x\n\n")
        wait_until(
            lambda: "no such user" in backup.log(), timeout=20, what="the refusal"
        )
        wait_until(
            lambda: b"no such user" in backup.postqueue(["-p"]),
            timeout=20,
            what="the message in the queue",
        )
    finally:
        backup.set(relayhost="[127.0.0.1]:9")
        backup.reload()
    assert "status=bounced" not in backup.log()


@pytest.fixture(scope="module")
def milters(stack: ExitStack) -> str:
    """Give opendkim and pyspf-milter by deploy/, on ports of their own.

    There is no DNS in the tests, for which SPF need not wait, nor defer.
    """
    places = []
    for name, port in (("opendkim", "8891"), ("pyspf-milter", "8893")):
        if (found := shutil.which(name, path=SEARCH_PATH)) is None:
            pytest.skip(f"{name} is not installed")
        base = stack.enter_context(instance_directory())
        mine = free_port()
        text = (BACKUP / f"{name}.conf").read_text("utf-8").replace(port, str(mine))
        text = text.replace("TempError_Defer = True", "TempError_Defer = False")
        text += f"PidFile = {base}/pid\nLookup_Time = 1\n" if name[0] == "p" else ""
        (base / "conf").write_text(text, "utf-8")
        options = ["-f", "-x"] if name == "opendkim" else []
        process = subprocess.Popen([found, *options, base / "conf"])
        stack.callback(process.wait, 20)
        stack.callback(process.kill)
        wait_until(partial(answers, mine), timeout=20, what=f"{name} on its port")
        places.append(f"inet:127.0.0.1:{mine}")
    return ", ".join(reversed(places))


def answers(port: int) -> bool:
    """Tell whether something listens there."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
        return True
    return False


def test_the_backup_writes_down_what_it_found_itself(
    stack: ExitStack, milters: str
) -> None:
    """SPF and DKIM of the client, by the real milters; what was forged is gone."""
    base = stack.enter_context(instance_directory())
    names = {"/etc/postfix": str(copied(BACKUP, base, {})), "queue_minfree": "#"}
    ours = parameters(BACKUP / "main.cf", names) | {"smtpd_milters": milters}
    ours |= {"mynetworks": "192.0.2.250/32", "relayhost": "[127.0.0.1]:9"}
    ours |= {"smtpd_authorized_xclient_hosts": "127.0.0.1"}
    ours["smtpd_sender_restrictions"] = "reject_non_fqdn_sender"
    backup = PrivatePostfix(base, hostname="mx2.example.com", parameters=ours)
    stack.enter_context(backup)
    with smtplib.SMTP("127.0.0.1", backup.port) as client:
        client.ehlo("client.example")
        client.docmd("XCLIENT", "ADDR=192.0.2.9 NAME=[UNAVAILABLE]")
        client.ehlo("client.example")
        client.sendmail("sender@bank.invalid", ["anna@example.com"], FORGED)
    (place,) = backup.wait_queue(1)  # there it stays
    text = backup.postcat(["-h", str(place)]).decode()
    found = re.findall(
        r"^Authentication-Results:\s*mx2\.example\.com;\s+(\w+)=", text, re.MULTILINE
    )
    assert sorted(found) == ["dkim", "spf"]
    assert "bank.example" not in text


def test_without_a_map_the_backup_asks_the_primary_and_remembers(
    stack: ExitStack,
) -> None:
    """During the outage who was known gets mail; the others are put off, not taken."""
    rcpt_of = per_recipient({"nobody@example.com": "550 5.1.1 no such user"})
    base = stack.enter_context(instance_directory())
    names = {"/etc/postfix": str(copied(BACKUP, base, {})), "smtpd_milters": "#"}
    names |= {"relay_recipient_maps": "#", "# smtpd_recipient": "smtpd_recipient"}
    ours = parameters(BACKUP / "main.cf", names | {"queue_minfree": "#"})
    assert ours["smtpd_recipient_restrictions"] == "reject_unverified_recipient"
    ours |= {"mynetworks": "192.0.2.250/32", "address_verify_poll_delay": "1s"}
    ours["smtpd_sender_restrictions"] = "reject_non_fqdn_sender"
    with PeerThread(Script(rcpt=rcpt_of)) as peer:
        ours["relayhost"] = f"[127.0.0.1]:{peer.port}"
        backup = PrivatePostfix(base, hostname="mx2.example.com", parameters=ours)
        stack.enter_context(backup)
        with smtplib.SMTP("127.0.0.1", backup.port) as client:
            assert rcpt(client, "anna@example.com") == 250
            assert rcpt(client, "nobody@example.com") == 550
    with smtplib.SMTP("127.0.0.1", backup.port) as client:
        assert rcpt(client, "anna@example.com") == 250
        assert rcpt(client, "nobody@example.com") == 550
        assert rcpt(client, "carol@example.com") == 450


def test_the_primary_does_not_greylist_the_backup(
    primary: Primary, greylist: Greylist
) -> None:
    """Anybody else is; the backup's unknown recipients are refused as ever."""
    with smtplib.SMTP("127.0.0.1", primary.port) as client:
        assert rcpt(client, "anna@example.com") == 250
        assert rcpt(client, "nobody@example.com") == 550
        assert rcpt(client, "x@elsewhere.example") == 554
    assert greylist.seen == set()
    with smtplib.SMTP("127.0.0.1", primary.port) as client:
        client.ehlo("stranger.example")
        client.docmd("XCLIENT", "ADDR=192.0.2.9 NAME=[UNAVAILABLE]")
        client.ehlo("stranger.example")
        assert rcpt(client, "anna@example.com") == 450
    assert greylist.seen == {("sender@example.org", "anna@example.com")}


def test_the_primary_offers_the_backup_to_name_clients(primary: Primary) -> None:
    """Both ways; to nobody else."""
    with smtplib.SMTP("127.0.0.1", primary.port) as client:
        client.ehlo("mx2.example.com")
        assert client.has_extn("xclient")
        assert client.has_extn("xforward")
        client.docmd("XCLIENT", "ADDR=192.0.2.9 NAME=[UNAVAILABLE]")
        client.ehlo("stranger.example")
        assert not client.has_extn("xclient")
