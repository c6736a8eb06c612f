"""The queue of a private backup: put mail into it, and see what is where."""

import smtplib
from collections import Counter
from collections.abc import Sequence

from tests.support.mta.postfix import PrivatePostfix
from tests.support.smtp_peer.peer import PeerThread


def submit(
    backup: PrivatePostfix, *recipients: Sequence[str], sender: str = "a@client.example"
) -> list[str]:
    """Send one message for each group of recipients; return the queue ids."""
    known = {path.name for path in backup.queue_files(("deferred", "hold"))}
    with smtplib.SMTP("127.0.0.1", backup.port) as client:
        for n, group in enumerate(recipients):
            client.sendmail(sender, list(group), f"Subject: {n}\r\n\r\nbody {n}\r\n")
    backup.wait_queue(len(known) + len(recipients), ("deferred", "hold"))
    found = [p.name for p in backup.queue_files(("deferred", "hold"))]
    return [name for name in found if name not in known]


def users(count: int, *, first: int = 0) -> list[list[str]]:
    """Return groups of one recipient each, for ``submit``."""
    return [[f"user{n}@example.org"] for n in range(first, first + count)]


def names(backup: PrivatePostfix, queue: str) -> set[str]:
    """Return the queue ids in a queue."""
    return {path.name for path in backup.queue_files((queue,))}


def copies(primary: PeerThread) -> Counter[str]:
    """Return how often each recipient was sent to."""
    return Counter(path for m in primary.accepted for path in m.forward_paths)


def relay_port(backup: PrivatePostfix) -> int:
    """Return the port where this backup looks for its primary."""
    return int(backup._parameters["relayhost"].rpartition(":")[2])
