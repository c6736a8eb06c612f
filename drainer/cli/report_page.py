"""A report as a page: what its facts mean in words, and its pictures as numbers.

Everything that a message or a primary wrote is escaped: control characters here, markup
by the template engine.
"""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from drainer.mail.reply import printable
from drainer.policy.recipient.state import FINAL, State
from drainer.runtime.units import describe_duration, format_size
from drainer.telemetry.privacy import AddressView

MAX_TEXT = 300
"""Characters of a text."""
WIDTH, HEIGHT = 720, 120
"""Of a picture, in its own units."""
_FINAL: Final = [state.value for state in FINAL]
_MARKDOWN = re.compile(r"([\\`*_\[\]#|<>~])")

TODO: Final[Mapping[str, tuple[str, str]]] = {
    State.PENDING.value: (
        "have not been tried", "drainer drain SOURCE",
    ),
    State.IN_FLIGHT.value: (
        "are being sent; if no drain runs, the next one settles them",
        "drainer drain SOURCE",
    ),
    State.DEFERRED.value: (
        "wait for their next attempt, which a drain makes", "drainer drain SOURCE",
    ),
    State.UNKNOWN.value: (
        "may have arrived; search the log of the primary for them",
        "drainer list --state unknown",
    ),
    State.HELD.value: (
        "wait for a decision of an operator", "drainer list --state held",
    ),
    State.BOUNCE_PENDING.value: (
        "were refused; the next drain confirms that when they are due",
        "drainer bounces list",
    ),
    State.QUARANTINED.value: (
        "were refused, and their senders may not get a bounce; look at the copies",
        "drainer quarantine list",
    ),
}  # fmt: skip
"""What there is to do about recipients in a state: why, and the command."""


def mask_addresses(
    facts: dict[str, Any], salt: bytes, *, plain: bool
) -> dict[str, Any]:
    """Return the facts with addresses shown as in traces, and without controls."""
    view = AddressView(salt, plain=plain)
    for reason in facts["reasons"]:
        for sample in reason["samples"]:
            own = [sample["forward_path"], sample.pop("reverse_path")]
            sample["reply"] = view.text(sample["reply"], view.own(own))
            sample["forward_path"] = view.address(sample["forward_path"])
    for breaker in (*facts["breakers"], *facts["breaker_history"]):
        breaker |= {key: view.tree(value) for key, value in breaker.items()}
    if not plain:
        for domain in facts["sender_domains"]:
            domain["domain"] = view.value(domain["domain"])
    cleaned: dict[str, Any] = _clean(facts)
    return cleaned


def _clean(value: Any) -> Any:  # noqa: ANN401 - as JSON has it
    match value:
        case str():
            return printable(value, MAX_TEXT)
        case Mapping():
            return {key: _clean(each) for key, each in value.items()}
        case list():
            return [_clean(each) for each in value]
        case _:
            return value


def render(facts: Mapping[str, Any], kind: str) -> str:
    """Return the report as html, md, or json."""
    if kind == "json":
        return json.dumps(facts, indent=1) + "\n"
    engine = Environment(
        loader=PackageLoader("drainer.cli"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters |= {"md": _markdown, "size": format_size, "minute": _minute}
    template = engine.get_template(f"report.{kind}.j2")
    return template.render(
        facts,
        sentences=list(sentences(facts)),
        todo=list(_todo(facts)),
        chart=_chart(facts["throughput"]),
        final=_FINAL,
        width=WIDTH,
        height=HEIGHT,
    )


def sentences(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield what happened, in three sentences."""
    states, total = facts["states"], sum(facts["states"].values())
    done = states[State.DELIVERED.value]
    share = f" ({done / total:.1%})" if total else ""
    begun = f"Since {_minute(facts['runs'][0]['started'])}, " if facts["runs"] else ""
    yield (
        f"{begun}drainer recorded {total} recipients of"
        f" {facts['messages']['total']} messages and delivered to {done} of"
        f" them{share}."
    )
    ended = [
        f"{states[state.value]} {state.value}"
        for state in (State.BOUNCED, State.QUARANTINED, State.DISCARDED)
        if states[state.value]
    ]
    left = total - sum(states[name] for name in _FINAL)
    words = f"{', '.join(ended)} are final too; " if ended else ""
    yield f"{words}{left} recipients remain.".capitalize()
    yield _describe_delivery(facts)


def _describe_delivery(facts: Mapping[str, Any]) -> str:
    """Return the sentence about the delivery itself."""
    for breaker in facts["breakers"]:
        if breaker["state"] != "closed":
            return (
                f"The circuit breaker of {breaker['scope']} is {breaker['state']} since"
                f" {_minute(breaker['since'])}: {breaker['reason']} {breaker['reply']}."
            )
    if not facts["runs"]:
        return "No drain has run."
    last = facts["runs"][-1]
    if last["ended"] is None:
        return f"The drain that started at {_minute(last['started'])} is running."
    how = "was killed" if last["died"] else f"ended with exit status {last['exit']}"
    return f"The last drain {how} at {_minute(last['ended'])}."


def _todo(facts: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what is left, why, when it is due, and the command to run."""
    if not facts["balanced"]:
        yield {
            "recipients": facts["spooled"] - sum(facts["states"].values()),
            "state": "not accounted for",
            "why": "are missing in the sums: a defect, please report it",
            "due": None,
            "command": "drainer ledger check",
        }
    for state, (why, command) in TODO.items():
        if count := facts["states"][state]:
            dues = [
                r["due"] for r in facts["reasons"] if r["state"] == state and r["due"]
            ]
            yield {
                "recipients": count,
                "state": state,
                "why": why,
                "due": min(dues, default=None),
                "command": command,
            }


def _chart(throughput: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the bars of the throughput, and the line of the limit, as numbers."""
    counts, seconds = throughput["counts"], throughput["seconds"]
    if not counts:
        return None
    rates = [count / seconds for count in counts]
    start = datetime.fromisoformat(throughput["start"])
    length = seconds * len(counts)
    limits = [
        (
            (datetime.fromisoformat(each["at"]) - start).total_seconds(),
            each["per_second"],
        )
        for each in throughput["limits"]
    ]
    shown = [(max(at, 0.0), rate) for at, rate in limits if at <= length]
    top = max((*rates, *(rate for _, rate in shown)), default=1.0) or 1.0
    step = WIDTH / len(counts)
    return {
        "bars": [
            {
                "x": round(n * step, 1),
                "width": round(max(step - 1, 0.5), 1),
                "height": round(rate / top * HEIGHT, 1),
            }
            for n, rate in enumerate(rates)
        ],
        "limit": _line(shown, length, top),
        "top": round(top, 2),
        "mean": round(sum(counts) / length, 2),
        "length": describe_duration(length),
    }


def _line(limits: list[tuple[float, float]], length: float, top: float) -> str:
    """Return the points of a line with steps, for SVG."""
    points: list[tuple[float, float]] = []
    for at, rate in limits:
        x, y = at / length * WIDTH, HEIGHT - rate / top * HEIGHT
        points += [(x, points[-1][1] if points else y), (x, y)]
    if points:
        points.append((WIDTH, points[-1][1]))
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _markdown(text: object) -> str:
    """Escape what Markdown would read as its own."""
    return _MARKDOWN.sub(r"\\\1", str(text)).replace("://", "\\://")  # no links


def _minute(moment: str | None) -> str:
    return moment[:16].replace("T", " ") + "Z" if moment else ""
