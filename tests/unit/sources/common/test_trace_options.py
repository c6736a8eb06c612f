"""The options for envelopes in trace fields are those of the rules."""

from drainer.sources.common.trace_headers import TraceRules
from drainer.sources.common.trace_options import TRACE_OPTIONS


def test_each_option_is_a_rule() -> None:
    """So a source passes its options on as they are."""
    rules = TraceRules(**dict.fromkeys(TRACE_OPTIONS, "x"))
    assert set(TRACE_OPTIONS) == set(TraceRules.__struct_fields__)
    assert rules.sender_header == "x"
