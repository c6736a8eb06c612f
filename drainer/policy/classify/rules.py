"""Rules about the text of a reply, as data: one row each, ours and the operator's.

A row is a mapping with these keys:

id         letters, digits and dashes; unique
when       regular expressions; one must match the text (normalize.words_of)
unless     regular expressions; none may match
codes      basic codes it applies to; none = all
enhanced   subject.detail it applies to ("4.1"); then it decides although the code
           is specific
stages     stages it applies to; none = all from MAIL on
permanent  what it means in a 5xx reply, and
temporary  in a 4xx reply: an Action; a 4xx is never permanent
why        the reason, for people
danger     what it could be mistaken for

Expressions are RE2's: their time is linear in the text, whatever an operator writes and
a primary replies. They look like Python's, but without lookaround and backreferences.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Protocol

import re2
from msgspec import Struct

from drainer.mail.reply import Reply, Stage
from drainer.mail.reply_codes import TRANSIENT
from drainer.policy.classify.grammar import with_classes
from drainer.policy.classify.verdict import BOUNCES, Action

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
_QUIET = re2.Options()
_QUIET.log_errors = False
_KEYS = frozenset(
    (
        "id", "when", "unless", "codes", "enhanced", "stages", "permanent",
        "temporary", "why", "danger",
    )
)  # fmt: skip


class RulePattern(Protocol):
    """A compiled expression, with the methods that are used."""

    def search(self, text: str, /) -> object | None:
        """Return where it matches a text; None if it does not."""
        ...


class Rule(Struct, frozen=True, kw_only=True):
    """One rule, checked and compiled."""

    id: str
    when: tuple[RulePattern, ...]
    unless: tuple[RulePattern, ...] = ()
    codes: frozenset[int] = frozenset()
    details: frozenset[str] = frozenset()
    stages: frozenset[Stage] = frozenset()
    #: None: it does not apply to that class.
    permanent: Action | None = None
    temporary: Action | None = None
    why: str = ""
    danger: str = ""

    def action(self, category: int) -> Action | None:
        """Return what it means for a reply of class 4 or 5; None: nothing."""
        return self.temporary if category == TRANSIENT else self.permanent

    def matches(self, words: str, reply: Reply, stage: Stage) -> bool:
        """Return whether it applies to a reply with this text."""
        return (
            self.action(reply.category) is not None
            and (not self.codes or reply.code in self.codes)
            and (not self.details or reply.detail in self.details)
            and (not self.stages or stage in self.stages)
            and any(pattern.search(words) for pattern in self.when)
            and not any(pattern.search(words) for pattern in self.unless)
        )


def find(rules: Iterable[Rule], words: str, reply: Reply, stage: Stage) -> Rule | None:
    """Return the first rule that applies."""
    return next((rule for rule in rules if rule.matches(words, reply, stage)), None)


def rules_of(rows: Sequence[Mapping[str, object]]) -> tuple[Rule, ...]:
    """Check and compile rows; a ValueError says which is wrong and what is legal."""
    rules = tuple(rule_of(row, number) for number, row in enumerate(rows, 1))
    names = [rule.id for rule in rules]
    for name in names:
        _check(names.count(name) == 1, f"two rules are called {name!r}")
    return rules


def rule_of(row: Mapping[str, object], number: int = 1) -> Rule:
    """Check and compile one row; ``number`` names it in an error (ValueError)."""
    name = f"rule {number} ({row.get('id', 'without an id')})"
    for key in row:
        legal = ", ".join(sorted(_KEYS))
        _check(key in _KEYS, f"{name}: unknown key {key!r}; legal are {legal}")
    is_named = _ID.fullmatch(str(row.get("id", ""))) is not None
    _check(is_named, f"{name}: id must be letters, digits and dashes")
    permanent, temporary = (_action(name, row, key) for key in _CLASSES)
    means = bool(permanent or temporary)
    _check(means, f"{name}: say what it means: permanent, temporary, or both")
    is_safe = temporary not in BOUNCES
    _check(is_safe, f"{name}: a temporary refusal is never permanent")
    when = _patterns(name, row, "when")
    _check(bool(when), f"{name}: when is missing: a list of regular expressions")
    return Rule(
        id=str(row["id"]),
        when=when,
        unless=_patterns(name, row, "unless"),
        codes=frozenset(_codes(name, row)),
        details=frozenset(_texts(name, row, "enhanced")),
        stages=frozenset(_stages(name, row)),
        permanent=permanent,
        temporary=temporary,
        why=str(row.get("why", "")) or f"rule {row['id']} matches",
        danger=str(row.get("danger", "")),
    )


_CLASSES = ("permanent", "temporary")


def _check(is_right: bool, message: str) -> None:  # noqa: FBT001
    if not is_right:
        raise ValueError(message)


def _action(name: str, row: Mapping[str, object], key: str) -> Action | None:
    text = row.get(key, "")
    legal = ", ".join(Action)
    is_legal = not text or (isinstance(text, str) and text in [*Action])
    _check(is_legal, f"{name}: {key} = {text!r}; legal are {legal}")
    return Action(str(text)) if text else None


def _texts(name: str, row: Mapping[str, object], key: str) -> list[str]:
    given = row.get(key, [])
    if not isinstance(given, list | tuple) or not all(
        isinstance(each, str) for each in given
    ):
        raise ValueError(f"{name}: {key} must be a list of texts")
    return list(given)


def _patterns(
    name: str, row: Mapping[str, object], key: str
) -> tuple[RulePattern, ...]:
    found: list[RulePattern] = []
    for text in _texts(name, row, key):
        try:
            found.append(re2.compile(text, _QUIET))
        except (re2.error, UnicodeError) as error:
            said = error.args[0]
            reason = said.decode() if isinstance(said, bytes) else said
            message = f"{name}: {key} {text!r} is not a regular expression: {reason}"
            raise ValueError(message) from None
    return tuple(found)


def _codes(name: str, row: Mapping[str, object]) -> list[int]:
    given = row.get("codes", [])
    if not isinstance(given, list | tuple) or not all(
        isinstance(each, int) and 400 <= each <= 599  # noqa: PLR2004
        for each in given
    ):
        raise ValueError(f"{name}: codes must be a list of numbers from 400 to 599")
    return list(given)


def _stages(name: str, row: Mapping[str, object]) -> list[Stage]:
    legal = [stage for stage in Stage if not stage.before_mail]
    texts = _texts(name, row, "stages")
    for text in texts:
        words = f"{name}: stage {text!r}; legal are {', '.join(legal)}"
        _check(text.lower() in legal, words)
    return [Stage(text.lower()) for text in texts]


@cache
def families() -> tuple[Rule, ...]:
    """Return our own rules, in the order they are tried, on the plain form of words."""
    text = (
        resources.files("drainer.policy.classify")
        .joinpath("families.toml")
        .read_text("utf-8")
    )
    found = tomllib.loads(text)
    return rules_of([_join(row, found["words"]) for row in found["rule"]])


def _join(row: Mapping[str, Any], classes: Mapping[str, str]) -> Mapping[str, object]:
    """Return a row with its classes of words, and one expression for each list."""
    patterns = {
        key: with_classes(row[key], classes) for key in ("when", "unless") if key in row
    }
    return dict(row) | {
        key: ["|".join(f"(?:{each})" for each in these)]
        for key, these in patterns.items()
    }
