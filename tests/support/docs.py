"""Write the generated parts of docs/ (``make docs``); tests/test_docs.py compares them.

A generated part stands between two comments, and is made from the code:

    <!-- generated: NAME -->
    <!-- end of NAME -->
"""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from drainer.config.render import reference_markdown, render_toml
from drainer.doctor.checks import rows as doctor_rows
from drainer.mail.message import PROBLEMS
from drainer.policy.bounce.decision import RULES as BOUNCE_RULES
from drainer.policy.bounce.evidence import RULES as EVIDENCE
from drainer.policy.classify.rules import families as known_families
from drainer.policy.recipient.state import FINAL, TRANSITIONS, State
from drainer.policy.watch.states import MOVES
from drainer.telemetry.names import ATTRIBUTES, RESOURCE, SPANS
from drainer.watch.metrics import METRICS
from tests.support import performance_plot
from tests.support.paths import ROOT

DOCS: Final = ROOT / "docs"
EXAMPLE: Final = ROOT / "drainer.toml"
"""What `drainer init` writes; the Debian package installs it."""

_PART = re.compile(
    r"(?P<head><!-- generated: (?P<name>[a-z_]+) -->\n).*?"
    r"(?P<tail><!-- end of (?P=name) -->)",
    re.DOTALL,
)


def transitions() -> str:
    """Return the table of policy/recipient/state.py, a row per event and target."""
    origins: dict[tuple[str, State], list[State]] = {}
    for (state, event), target in TRANSITIONS.items():
        origins.setdefault((event.value, target), []).append(state)
    rows = [
        (", ".join(states), event, f"**{target}**" if target in FINAL else target.value)
        for (event, target), states in origins.items()
    ]
    return table(("from", "event", "to"), rows)


def watching() -> str:
    """Return the table of policy/watch/machine.py, a row per event and target."""
    origins: dict[tuple[str, str], list[str]] = {}
    for (state, event), target in MOVES.items():
        if state is not target:
            origins.setdefault((event.value, target.value), []).append(state.value)
    rows = [
        (", ".join(states), event, target)
        for (event, target), states in origins.items()
    ]
    return table(("from", "event", "to"), rows)


def problems() -> str:
    """Return what holds a message, by code."""
    rows = [
        (f"`{code}`", meaning, "yes" if releasable else "no")
        for code, (meaning, releasable) in PROBLEMS.items()
    ]
    return table(("code", "meaning", "`release` sends it"), rows)


def spans() -> str:
    """Return the names of spans."""
    return _named("span", SPANS)


def attributes() -> str:
    """Return the names of attributes."""
    return _named("attribute", ATTRIBUTES)


def resource() -> str:
    """Return the names of the attributes of the resource."""
    return _named("attribute", RESOURCE)


def families() -> str:
    """Return what each family of words means, in the order they are tried."""
    rows = [
        (
            f"`{rule.id}`",
            rule.permanent or "",
            rule.temporary or "by its code",
            rule.why,
            rule.danger,
        )
        for rule in known_families()
    ]
    return table(("rule", "5xx", "4xx", "why", "not to be mistaken for"), rows)


def evidence() -> str:
    """Return what each rule about evidence looks at."""
    return table(("rule", "about"), ((f"`{k}`", v[0]) for k, v in EVIDENCE.items()))


def bounce_rules() -> str:
    """Return what each rule of the bounce rules is about, in their order."""
    return table(
        ("rule", "applies when"), ((f"`{k}`", v[0]) for k, v in BOUNCE_RULES.items())
    )


def doctor() -> str:
    """Return every check of the doctor, and its remedy."""
    rows = ((f"`{name}`", *words) for name, *words in doctor_rows())
    return table(("check", "what must hold", "fails when", "remedy"), rows)


def metrics() -> str:
    """Return what Prometheus reads, by name."""
    rows = [
        (
            f"`{metric.name}{'_total' if metric.kind == 'counter' else ''}`",
            metric.kind,
            ", ".join(f"`{label}`" for label in metric.labels),
            metric.help,
        )
        for metric in METRICS
    ]
    return table(("name", "type", "labels", "meaning"), rows)


def configuration() -> str:
    """Return every key of the configuration."""
    return reference_markdown().lstrip("\n")


PARTS: Final[Mapping[str, Callable[[], str]]] = {
    part.__name__: part
    for part in (
        transitions,
        watching,
        problems,
        spans,
        attributes,
        resource,
        families,
        evidence,
        bounce_rules,
        doctor,
        metrics,
        configuration,
    )
}


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    heads = list(heads)
    lines = [_row(heads), "|" + "---|" * len(heads), *(_row(row) for row in rows)]
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _named(head: str, meanings: Mapping[str, str]) -> str:
    rows = [(f"`{name}`", meaning) for name, meaning in meanings.items()]
    return table((head, "meaning"), rows)


def regenerated(text: str) -> str:
    """Return a document with its generated parts as they should be."""
    return _PART.sub(lambda m: m["head"] + PARTS[m["name"]]() + m["tail"], text)


def parts_of(text: str) -> list[str]:
    """Return the names of the generated parts of a document."""
    return [match["name"] for match in _PART.finditer(text)]


def main() -> int:
    """Rewrite what is out of date."""
    for path in sorted(DOCS.glob("*.md")):
        before = path.read_text("utf-8")
        after = regenerated(before)
        if after != before:
            path.write_text(after, "utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    if EXAMPLE.read_text("utf-8") != render_toml():
        EXAMPLE.write_text(render_toml(), "utf-8")
        print(f"wrote {EXAMPLE.relative_to(ROOT)}")
    picture = performance_plot.plot(performance_plot.PAGE.read_text("utf-8"))
    if performance_plot.PICTURE.read_text("utf-8") != picture:
        performance_plot.PICTURE.write_text(picture, "utf-8")
        print(f"wrote {performance_plot.PICTURE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
