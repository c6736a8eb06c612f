"""Names say what a thing is, and each means one thing."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from tests.support.rows import every_row
from tests.test_layers import MODULES

#: Every format of a spool has these; a package of formats has them many times.
PER_FORMAT: Final = frozenset(("source", "message", "layout", "file", "envelope"))

#: Words that end like a verb's form, and are nouns of the field.
NOUNS: Final = {
    "framing": "how a format marks where a message begins and ends",
    "mapping": "a table from one thing to another",
    "pacing": "the rate controller's package: packages may be named for a subject",
    "quoting": "how an mbox escapes lines",
    "finding": "what a check has found",
    "reading": "a value that was read",
}

_PARTICIPLE: Final = re.compile(
    r"(?:[a-z]{2,}ing|[a-z]{2,}ed|told|kept|held|sent|shown|seen|known|found|taken|left)$"
)
_WORDS: Final = re.compile(r"[A-Z][a-z0-9]*|[a-z0-9]+")


def classes() -> Iterator[tuple[str, str]]:
    """Yield the module and the name of every class at the top of a module."""
    for module, path in MODULES.items():
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef):
                yield module, node.name


def last_word(name: str) -> str:
    """Return the last word of a name: it says what the thing is."""
    return str(_WORDS.findall(name)[-1]).lower()


def test_a_class_name_means_one_class() -> None:
    """A reader who looks a name up finds one thing."""
    homes = defaultdict(list)
    for module, name in classes():
        if not name.startswith("_"):
            homes[name].append(module)
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def test_a_module_name_means_one_module_of_its_package() -> None:
    """But for the parts that every format has."""
    homes = defaultdict(list)
    for module in MODULES:
        package, _, rest = module.removeprefix("drainer.").partition(".")
        stem = rest.rpartition(".")[2]
        if stem and not MODULES[module].name.startswith("__"):
            homes[package, stem].append(module)
    twice = {key: found for key, found in homes.items() if len(found) > 1}
    assert {key: v for key, v in twice.items() if key[1] not in PER_FORMAT} == {}


@every_row(MODULES)
def test_a_module_is_a_noun(module: str) -> None:
    """It is named for what is in it, never for what that does."""
    word = last_word(module.rpartition(".")[2].strip("_"))
    assert not _PARTICIPLE.search(word) or word in NOUNS


def test_a_class_is_what_it_is() -> None:
    """It is named by a noun, never by a form of a verb."""
    wrong = [name for _, name in classes() if _PARTICIPLE.search(last_word(name))]
    assert [name for name in wrong if last_word(name) not in NOUNS] == []
