"""The options for trace fields."""

from drainer.sources.common.trace_headers import TraceRules
from drainer.sources.common.trace_options import TRACE_OPTIONS, take_trace_rules


def test_each_rule_has_an_option() -> None:
    """And an option that is not given changes nothing."""
    options = {"variant": "plain"} | {name: f"x-{name}" for name in TRACE_OPTIONS}
    rules = take_trace_rules(options)
    assert options == {"variant": "plain"}
    assert {name: getattr(rules, name) for name in TRACE_OPTIONS} == {
        name: f"x-{name}" for name in TRACE_OPTIONS
    }
    assert take_trace_rules({}) == TraceRules()
