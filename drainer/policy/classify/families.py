"""The text families of families.toml, next to this file: ours, checked and compiled."""

import tomllib
from functools import cache
from importlib import resources

from drainer.policy.classify.rules import Rule, rules_of


@cache
def families() -> tuple[Rule, ...]:
    """Return our own rules, in the order they are tried."""
    text = (
        resources.files("drainer.policy.classify")
        .joinpath("families.toml")
        .read_text("utf-8")
    )
    return rules_of(tomllib.loads(text)["rule"])
