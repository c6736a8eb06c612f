"""The operator's own rules."""

import tomllib
from pathlib import Path

from drainer.config import Config
from drainer.config.trust import read_trusted
from drainer.errors import UsageError
from drainer.policy.classify.rules import Rule, rules_of


def make_rules(config: Config) -> tuple[Rule, ...]:
    """Return the operator's own rules.

    Raises UsageError when the file is wrong, or when others could have changed it.
    """
    return read_rules(Path(config.primary.rules)) if config.primary.rules else ()


def read_rules(path: Path) -> tuple[Rule, ...]:
    """Read a file of rules; UsageError names what is wrong with it, and the line."""
    try:
        rows = tomllib.loads(read_trusted(path).decode()).get("rule", [])
        if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
            raise ValueError("write rules as [[rule]] tables")  # noqa: TRY301 - reported like the others
        return rules_of(rows)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        message = f"{path}: {reason}"
        hint = (
            "docs/refusals.md has the grammar; test it: drainer classify --check FILE"
        )
        raise UsageError(message, hint=hint) from None
