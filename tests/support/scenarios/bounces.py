"""A backup whose refused mail has senders that DNS proves, or does not.

The primary refuses ``nobody...`` for good, and takes the rest. Reports go to a peer.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from email import message_from_bytes
from email.message import Message as Mail
from typing import Any, Final

from tests.support.command.runner import Bench, Result
from tests.support.dns.zones import Zone, serving, zone_of
from tests.support.scenarios.primaries import OK, SENDER, UNKNOWN
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Message, Step, View
from tests.support.spools.postfix_files import record

BOB: Final = "bob@sender.example"
CLIENT: Final = (record("A", "client_address=192.0.2.1"),)
ZONE: Final = {
    "sender.example": [
        ("TXT", "v=spf1 ip4:192.0.2.1 -all"),
        ("MX", "10 mx.sender.example"),
    ],
    "mx.sender.example": [("A", "192.0.2.25")],
}


def nobody_unknown(view: View) -> Step:
    """Answer RCPT as a primary that knows everybody but nobody."""
    unknown = view.path.startswith(("nobody", "drainer-canary"))
    return UNKNOWN.format(view.path) if unknown else OK


@dataclass(slots=True, kw_only=True)
class Refusing(Bench):
    """A bench, the primary that refuses, and the relay that takes reports."""

    primary: PeerThread
    relay: PeerThread
    #: What DNS says; it may be changed.
    zone: Zone

    def refuse(
        self, *recipients: str, sender: str = BOB, verp: bool = False, **options: Any
    ) -> str:
        """Put a message for people whom nobody knows into the spool."""
        paths = recipients or ("nobody@example.org",)
        parts = (*CLIENT, record("V", "+=")) if verp else CLIENT
        return self.add(*paths, sender=sender, envelope=parts, **options)

    def confirm(self) -> Result:
        """Drain until what is refused is final, as far as it may be."""
        assert self.drain().code == 5
        return self.drain()

    @property
    def reports(self) -> list[Message]:
        """The reports that the relay took."""
        return self.relay.accepted

    def rows(self, *filters: str) -> list[dict[str, Any]]:
        """Return what `bounces list` says."""
        found: list[dict[str, Any]] = self.run(
            "bounces", "list", "--json", *filters
        ).lines
        return found

    def sendings(self, id_: str) -> list[dict[str, Any]]:
        """Return the decisions about sending the report of a message, in order."""
        decisions = self.why(id_)["decisions"]
        return [d for d in decisions if d["rule"].startswith("report-")]


def age(bench: Refusing, **time: float) -> None:
    """Let everything about reports and evidence be so much older."""
    micros = timedelta(**time) // timedelta(microseconds=1)
    with closing(sqlite3.connect(bench.ledger)) as ledger, ledger:
        ledger.execute(
            "UPDATE reports SET at = at - ?, due = due - ?", (micros, micros)
        )
        ledger.execute(
            "UPDATE evidence SET asked = asked - ?, looked = looked - ?",
            (micros, micros),
        )


def parsed(message: Message) -> Mail:
    """Return a report as Python's own package reads it."""
    assert message.content is not None
    return message_from_bytes(message.content)


@contextmanager
def refusing(root: Any, relay: PeerThread, primary: PeerThread) -> Iterator[Refusing]:
    """Give a bench with a DNS server of its own."""
    zone: Zone = zone_of(ZONE)
    with serving(zone) as servers:
        bench = Refusing(
            root=root, port=primary.port, primary=primary, relay=relay, zone=zone
        )
        bench.configure(
            primary={"idle_timeout": "100ms"},  # a canary waits for it
            bounce={
                "confirm_after": "10ms",
                "settle": "0s",
                "retry": "10ms",
                "rate": "unlimited",
                "via": f"127.0.0.1:{relay.port}",
                "dns_servers": list(servers.addresses),
                "dns_port": servers.port,
                "dns_timeout": "2s",
            },
            breaker={"give_up_after": "300ms"},
            health={"accept": ["known@example.org"], "sender": SENDER},
        )
        yield bench
