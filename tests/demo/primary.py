"""The primary of the demo: ours, on loopback, and not altogether well."""

from collections.abc import Iterable
from typing import Final

from tests.support.smtp_peer.script import Script, Step, View

KNOWN_GOOD: Final = "postmaster@example.org"
#: Whose mail it takes; a bounce to a stranger lies in the spool as well, and is held.
DOMAINS: Final = (
    "example.org", "example.net", "partial.example.net", "stall.example.net",
    "例え.example.org",
)  # fmt: skip
#: Refused for good, always.
UNKNOWN: Final = frozenset({"Carol@Example.ORG", "moved-away@example.org"})
#: Refused for the moment when they are first tried, accepted from then on.
BUSY: Final = frozenset({"erin@example.org", "heidi@example.org"})


def script() -> Script:
    """Return what the primary does."""
    busy = set(BUSY)

    def rcpt(view: View) -> Step:
        if view.path in UNKNOWN or view.path.startswith("drainer-check-"):
            return f"550 5.1.1 <{view.path}>: no such user here"
        if view.path in busy:
            busy.remove(view.path)
            return f"450 4.2.1 <{view.path}>: mailbox is busy, try again later"
        return "250 2.1.5 ok"

    return Script(name="mx1.example.net", banner="220 mx1.example.net ESMTP", rcpt=rcpt)


def counted(replies: Iterable[str]) -> dict[str, int]:
    """Return how many replies there were of each class: accepted, deferred, refused."""
    words = {"2": "accepted", "4": "deferred", "5": "refused"}
    counts = dict.fromkeys(words.values(), 0)
    for reply in replies:
        counts[words[reply[0]]] += 1
    return counts
