"""Make tests/data/postfix and tests/data/postfix.json with a real Postfix, as root.

    python -m tests.data.make_postfix_samples

A private Postfix receives every case of sample_messages.py, delivers some of them in
part to a scripted peer, and is killed in the middle of its work. Its queue is copied as
it lies. Beside it postfix.json keeps, for every message file, what Postfix's own
postcat reads from it; tests hold our reader to that. Made anew, the files differ in ids
and times but not in kind.

Git keeps no file modes but x, and no empty directories: tests/support/spools/samples.py
lays the queue out again.
"""

import contextlib
import datetime as dt
import hashlib
import json
import re
import shutil
import smtplib
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.data import sample_messages as cases
from tests.data.sample_messages import Local, Smtp
from tests.support.mta.milter import Milter
from tests.support.mta.postfix import (
    PrivatePostfix,
    free_port,
    instance_directory,
    program,
    wait_until,
)
from tests.support.mta.roles import backup
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Script, Stall, Step, per_recipient

DATA: Final = Path(__file__).parent
QUEUES: Final = ("incoming", "active", "deferred", "hold", "corrupt", "maildrop")
LOGS: Final = ("bounce", "defer", "trace")
DOMAINS: Final = (
    "example.org",
    "example.net",
    cases.PARTIAL_DOMAIN,
    cases.STALL_DOMAIN,
)

PARTIAL_REPLIES: Final = {
    f"bad@{cases.PARTIAL_DOMAIN}": "550 5.1.1 no such user",
    f"late1@{cases.PARTIAL_DOMAIN}": "450 4.2.1 mailbox busy",
    f"late2@{cases.PARTIAL_DOMAIN}": "450 4.2.1 mailbox busy",
}
STALL_REPLIES: Final[dict[str, Step]] = {
    f"bad@{cases.STALL_DOMAIN}": "550 5.1.1 no such user",
    f"stall@{cases.STALL_DOMAIN}": Stall(),
}

# ---- the server


@dataclass(slots=True)
class Maker:
    """A running server, its milter, and the queue ids that the cases got."""

    postfix: PrivatePostfix
    milter: Milter
    #: Listener by name.
    ports: dict[str, int]
    ids: dict[str, str] = field(default_factory=dict)

    # ---- submitting

    def submit(self, case: Smtp | Local) -> None:
        """Send a case through and remember its queue id."""
        if isinstance(case, Local):
            self._submit_locally(case)
            return
        with self._transaction(case) as client:
            client.send(re.sub(rb"(?m)^\.", b"..", case.content) + b".\r\n")
            code, text = client.getreply()
        found = re.search(rb"queued as (\w+)", text)
        if code != 250 or found is None:
            msg = f"{case.name}: {code} {text!r}"
            raise RuntimeError(msg)
        self.ids[case.name] = found[1].decode()

    @contextlib.contextmanager
    def _transaction(self, case: Smtp) -> Iterator[smtplib.SMTP]:
        """Open a transaction as far as the 354 reply."""
        self.milter.edits = list(case.edits)
        client = smtplib.SMTP(
            "127.0.0.1", self.ports[case.way], local_hostname="mail.example.com"
        )
        client.command_encoding = "utf-8"
        with client:
            client.ehlo()
            commands = [(f"XCLIENT {case.client}", 220), ("EHLO mail.example.com", 250)]
            path, _, parameters = case.mail.partition("> ")
            commands.append(
                (f"MAIL FROM:{path.removesuffix('>')}> {parameters}".strip(), 250)
            )
            commands += [(f"RCPT TO:{recipient}", 250) for recipient in case.rcpt]
            for command, expected in [*commands, ("DATA", 354)]:
                code, text = client.docmd(command)
                if code != expected:
                    msg = f"{case.name}: {command}: {code} {text!r}"
                    raise RuntimeError(msg)
            yield client

    def _submit_locally(self, case: Local) -> None:
        before = set(self.postfix.queue_files(("deferred", "hold")))

        def settled() -> list[Path]:
            return sorted(set(self.postfix.queue_files(("deferred", "hold"))) - before)

        self.postfix.sendmail(case.args, case.content)
        wait_until(lambda: len(settled()) == 1, timeout=30, what=case.name)
        self.ids[case.name] = settled()[0].name

    def settle(self) -> None:
        """Wait until nothing is on its way any more."""
        # In the order that a message takes, so that none slips past.
        self.postfix.wait_queue(0, ("maildrop", "incoming", "active"))

    # ---- special states

    def hold(self) -> None:
        """Put two messages on hold, and force one of them to expire."""
        ids = self.ids
        for case in (cases.HELD, cases.EXPIRED):
            self.submit(case)
        self.settle()
        self.postfix.postsuper(["-h", ids[cases.HELD.name]])
        self.postfix.postsuper(["-h", ids[cases.EXPIRED.name]])
        self.postfix.postsuper(["-e", ids[cases.EXPIRED.name]])

    def corrupt(self) -> None:
        """Cut a message off and let the queue manager find out."""
        self.submit(cases.CORRUPT)
        self.settle()
        queue_id = self.ids[cases.CORRUPT.name]
        (path,) = (path for path in self.postfix.queue_files() if path.name == queue_id)
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 100)
        self.postfix.postqueue(["-i", queue_id])
        self.postfix.wait_queue(1, ("corrupt",))

    def die(self, stalling: PeerThread) -> None:
        """Kill the server while it receives one message and delivers another."""
        self.submit(cases.REQUEUED)
        self.settle()
        with self._transaction(cases.HALF) as client:
            client.send(cases.HALF.content[:-100])
            self.postfix.wait_queue(1, ("incoming",))
            self.submit(cases.STALLED)
            stalling.wait(lambda: any(b"stall@" in c.line for c in stalling.commands))
            self.postfix.kill()
            client.close()
        (half,) = self.postfix.queue_files(("incoming",))
        self.ids[cases.HALF.name] = half.name

    def submit_to_the_dead(self) -> None:
        """Leave two files for a pickup that will not come."""
        self.postfix.sendmail(cases.UNSEEN.args, cases.UNSEEN.content)
        (unseen,) = self.postfix.queue_files(("maildrop",))
        self.ids[cases.UNSEEN.name] = unseen.name
        self.postfix.postsuper(["-r", self.ids[cases.REQUEUED.name]])


@contextlib.contextmanager
def server(partial: PeerThread, stalling: PeerThread) -> Iterator[Maker]:
    """Run the server that all cases go through."""
    with instance_directory() as base, Milter() as milter:
        checks = {
            "header_checks": cases.HEADER_CHECKS,
            "body_checks": cases.BODY_CHECKS,
        }
        for name, text in checks.items():
            (base / name).write_text(text, encoding="ascii")
        routes = (
            f"{{{cases.PARTIAL_DOMAIN} = real:[127.0.0.1]:{partial.port}}}, "
            f"{{{cases.STALL_DOMAIN} = single:[127.0.0.1]:{stalling.port}}}"
        )
        parameters = {
            "transport_maps": f"inline:{{ {routes} }}",
            "smtpd_authorized_xclient_hosts": "127.0.0.1",
            "smtpd_authorized_verp_clients": "static:all",
            "strict_smtputf8": "no",
            "inet_protocols": "all",
            "allow_untrusted_routing": "yes",
            "milter_default_action": "tempfail",
            "single_destination_recipient_limit": "1",
            "single_destination_concurrency_limit": "1",
        } | {name: f"regexp:{base / name}" for name in checks}
        postfix = backup(base, domains=DOMAINS, parameters=parameters)
        ports = {"usual": postfix.port, "milter": free_port(), "long": free_port()}
        postfix.add_master(
            f"127.0.0.1:{ports['milter']} inet n - n - - smtpd\n"
            f"  -o smtpd_milters={milter.place}\n"
            f"127.0.0.1:{ports['long']} inet n - n - - smtpd\n"
            "  -o cleanup_service_name=longcleanup\n"
            "longcleanup unix n - n - 0 cleanup\n"
            "  -o enable_long_queue_ids=yes\n"
            "real unix - - n - - smtp\n"
            "single unix - - n - - smtp\n"
        )
        with postfix:
            yield Maker(postfix, milter, ports)


# ---- what postcat says

_PER_RECIPIENT: Final = {
    "original_recipient": "original",
    "dsn_orig_rcpt": "orcpt",
    "notify_flags": "notify",
}
_MESSAGE_RECORDS: Final = ("sender", "redirect_to", "content_filter", "verp_delimiters")
_TIMES: Final = {"message_arrival_time": "arrived", "create_time": "created"}
#: Attributes of the last hop, which repeat the log_ ones.
_LAST_HOP: Final = (
    "client_",
    "reverse_client_",
    "server_",
    "helo_name",
    "protocol_name",
)


def read_envelope(text: str) -> dict[str, Any]:
    """Sort the lines of ``postcat -e``; of what may be there once, the first counts."""
    found: dict[str, Any] = {
        "attributes": {},
        "recipients": [],
        "done": [],
        "canceled": [],
    }
    facts: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "named_attribute":
            name, _, value = value.partition("=")
            if name not in _PER_RECIPIENT and not name.startswith(_LAST_HOP):
                found["attributes"].setdefault(name, value)
        if name in _PER_RECIPIENT:
            facts[_PER_RECIPIENT[name]] = value
        elif name in _MESSAGE_RECORDS:
            found.setdefault(name, value)
        elif name in _TIMES:
            moment = dt.datetime.strptime(f"{value} +0000", "%a %b %d %H:%M:%S %Y %z")
            found.setdefault(_TIMES[name], moment.isoformat())
        elif name == "message_size":
            found.setdefault("sendopts", int(value.split()[5]))
        elif name == "recipient":
            found["recipients"].append({"address": value} | facts)
            facts = {}
        elif name in ("done_recipient", "canceled_recipient"):
            found[name.removesuffix("_recipient")].append(value)
            facts = {}
    return found


def oracle(postfix: PrivatePostfix, path: Path) -> dict[str, Any]:
    """Return everything that postcat reads from one file."""
    content = postfix.postcat(["-bh", str(path)])
    envelope = postfix.postcat(["-e", str(path)]).decode("utf-8", "surrogateescape")
    return read_envelope(envelope) | {
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def describe(maker: Maker) -> dict[str, Any]:
    """Return the content of postfix.json: message files by their relative path."""
    name_of = {queue_id: name for name, queue_id in maker.ids.items()}
    files: dict[str, Any] = {}
    for path in maker.postfix.queue_files(QUEUES):
        mode = stat.S_IMODE(path.stat().st_mode)
        queue = path.relative_to(maker.postfix.queue_dir).parts[0]
        usable = queue != "corrupt" and mode & 0o700 == 0o700
        files[str(path.relative_to(maker.postfix.queue_dir))] = {
            "case": name_of.get(path.name, "made by Postfix"),
            "mode": f"{mode:04o}",
            "oracle": oracle(maker.postfix, path) if usable else None,
        }
    version = subprocess.run(
        [program("postconf"), "-dh", "mail_version"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    return {"postfix": version, "files": files}


# ---- putting it in place


def copy_queue(source: Path, target: Path) -> None:
    """Copy messages and logs, and nothing that names this host."""
    shutil.rmtree(target, ignore_errors=True)
    host = re.compile(rb"\b" + re.escape(socket.gethostname().encode()) + rb"\b")
    for queue in QUEUES + LOGS:
        for path in (source / queue).rglob("*"):
            if not path.is_file():
                continue
            data = path.read_bytes()
            if host.search(data):
                msg = f"{path} names this host"
                raise RuntimeError(msg)
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(data)
            copy.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)


def submit_all(maker: Maker, groups: Sequence[Sequence[Smtp | Local]]) -> None:
    """Submit the ordinary cases one by one."""
    for group in groups:
        for case in group:
            maker.submit(case)
        maker.settle()


def main() -> None:
    """Make everything anew."""
    extensions = ("PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE")
    script = Script(extensions=extensions, rcpt=per_recipient(PARTIAL_REPLIES))
    slow = Script(extensions=extensions, rcpt=per_recipient(STALL_REPLIES))
    with (
        PeerThread(script) as partial,
        PeerThread(slow) as stalling,
        server(partial, stalling) as maker,
    ):
        submit_all(maker, [cases.USUAL, cases.EDITED, cases.LOCAL, cases.PARTIAL])
        maker.hold()
        maker.corrupt()
        maker.die(stalling)
        maker.submit_to_the_dead()
        described = describe(maker)
        copy_queue(maker.postfix.queue_dir, DATA / "postfix")
    text = json.dumps(described, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    (DATA / "postfix.json").write_text(text, encoding="utf-8")
    sys.stdout.write(f"{len(described['files'])} messages\n")


if __name__ == "__main__":
    main()
