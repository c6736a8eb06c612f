"""The options of a source whose messages keep their envelope in trace fields."""

from collections.abc import Mapping
from typing import Final

from drainer.sources.common.trace_headers import TraceRules
from drainer.sources.protocol import SourceOption

TRACE_OPTIONS: Final[Mapping[str, SourceOption]] = {
    name: SourceOption(name) for name in TraceRules.__struct_fields__
}
