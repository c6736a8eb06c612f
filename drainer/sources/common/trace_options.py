"""The options of a source whose messages keep their envelope in trace fields."""

from collections.abc import Mapping
from typing import Final

from drainer.sources.common.trace_headers import TraceRules
from drainer.sources.protocol import SourceOption

TRACE_OPTIONS: Final[Mapping[str, SourceOption]] = {
    name: SourceOption(name)
    for name in ("backup_host", "sender_header", "recipient_header", "strip_prefix")
}


def take_trace_rules(options: dict[str, str]) -> TraceRules:
    """Remove these options from the others, and return what they say."""
    return TraceRules(**{name: options.pop(name, "") for name in TRACE_OPTIONS})
