"""What a drain has learned about one host of the primary; its later sessions use it."""

import sys
import time
from dataclasses import dataclass, field

PIPELINING = "pipelining"


@dataclass(slots=True)
class HostTrust:
    """Which announced extensions a host is not trusted with, and what it can take."""

    #: EHLO keywords, in lower case, that drainer no longer uses with this host.
    ignored: set[str] = field(default_factory=set)
    #: It answered a pipelined group, the 354 to DATA included.
    pipelines: bool = False
    #: No MAIL may travel behind a final dot.
    waits_for_dot: bool = False
    #: Most messages in one session.
    max_messages: int = sys.maxsize
    #: After how many messages the host ended a session last, and when.
    _ended: tuple[int, float] = (0, 0.0)
    #: What was learned and is not recorded yet: rule, and a sentence.
    news: list[tuple[str, str]] = field(default_factory=list)

    def distrust(self, extension: str, why: str) -> None:
        """Use an extension with this host no more."""
        if extension not in self.ignored:
            self.ignored.add(extension)
            words = f"drainer no longer uses {extension.upper()} with this host"
            self.news.append(("extension-ignored", f"{words}: {why}"))

    def wait_for_dots(self, why: str) -> None:
        """Send no MAIL behind a final dot to this host any more."""
        if not self.waits_for_dot:
            self.waits_for_dot = True
            words = "drainer waits for the reply to each final dot of this host"
            self.news.append(("waits-for-dot", f"{words}: {why}"))

    def end_session(self, messages: int, opened: float, why: str) -> None:
        """Note that the host ended a session after this many messages.

        A later session that ends so too shows a limit: later ones end before the host
        does it. A single end shows nothing, because a restart or one message may be
        the cause. ``opened`` and the end are by time.monotonic().
        """
        before, at = self._ended
        self._ended = messages, time.monotonic()
        if before == messages < self.max_messages and opened > at:
            self.max_messages = messages
            some = "one message" if messages == 1 else f"{messages} messages"
            words = f"drainer ends each session after {some}, as the primary does"
            self.news.append(("session-limit", f"{words}: {why}"))

    def trusted(self, extensions: dict[str, str]) -> dict[str, str]:
        """Return the announced extensions that drainer uses."""
        return {k: v for k, v in extensions.items() if k not in self.ignored}
