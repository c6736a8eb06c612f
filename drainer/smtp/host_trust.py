"""What a drain has learned about one host of the primary; its later sessions use it."""

import sys
from dataclasses import dataclass, field

PIPELINING = "pipelining"


@dataclass(slots=True)
class HostTrust:
    """Which announced extensions a host is not trusted with, and what it can take."""

    #: EHLO keywords, in lower case, that drainer no longer uses with this host.
    ignored: set[str] = field(default_factory=set)
    #: It answered a pipelined group, the 354 to DATA included.
    pipelines: bool = False
    #: Most messages in one session.
    max_messages: int = sys.maxsize
    #: What was learned and is not recorded yet: rule, and a sentence.
    news: list[tuple[str, str]] = field(default_factory=list)

    def distrust(self, extension: str, why: str) -> None:
        """Use an extension with this host no more."""
        if extension not in self.ignored:
            self.ignored.add(extension)
            words = f"drainer no longer uses {extension.upper()} with this host"
            self.news.append(("extension-ignored", f"{words}: {why}"))

    def limit(self, messages: int, why: str) -> None:
        """End later sessions after this many messages, before the host does it."""
        if 0 < messages < self.max_messages:
            self.max_messages = messages
            words = f"drainer ends each session after {messages} messages"
            self.news.append(("session-limit", f"{words}: {why}"))

    def trusted(self, extensions: dict[str, str]) -> dict[str, str]:
        """Return the announced extensions that drainer uses."""
        return {k: v for k, v in extensions.items() if k not in self.ignored}
