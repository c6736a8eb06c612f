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
    #: How it ended a session last, unless one message was the cause.
    _end: "_SessionEnd | None" = None
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

        A single end shows nothing, because a restart or one message may be the cause:
        ``judge_alone`` tells. ``opened`` and the end are by time.monotonic().
        """
        last = self._end
        is_repeated = last and last.messages == messages and opened > last.at
        self._end = _SessionEnd(messages, time.monotonic(), why, bool(is_repeated))

    def judge_alone(self, *, ended: bool) -> None:
        """Learn from a message that went alone whether the host limits its sessions.

        If it ``ended`` its own session as well, the message was the cause, and a limit
        that was learned is forgotten. If not, and two sessions ended after as many
        messages, drainer ends later sessions with that host first.
        """
        last = self._end
        if ended:
            self._end, self.max_messages = None, sys.maxsize
        elif last and last.is_repeated and last.messages < self.max_messages:
            self.max_messages = last.messages
            some = "one message" if last.messages == 1 else f"{last.messages} messages"
            words = f"drainer ends each session after {some}, as the primary does"
            self.news.append(("session-limit", f"{words}: {last.why}"))

    def trusted(self, extensions: dict[str, str]) -> dict[str, str]:
        """Return the announced extensions that drainer uses."""
        return {k: v for k, v in extensions.items() if k not in self.ignored}


@dataclass(frozen=True, slots=True)
class _SessionEnd:
    """A session that the host ended."""

    messages: int
    #: By time.monotonic().
    at: float
    why: str
    #: The one before ended after as many messages.
    is_repeated: bool
