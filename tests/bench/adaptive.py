"""The controller beside fixed rates, Postfix's feedback and no throttle, in simulation.

Writes the plot and the table of docs/throttle.md; the same seed gives the same figures.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.support.docs import DOCS, table
from tests.support.scenarios.simulation import (
    Client,
    Feedback,
    Fixed,
    Ours,
    Outcome,
    simulate,
)

SEED: Final = 1
MESSAGES: Final = 10_000
LIMIT: Final = 6000.0
QUIET_FOR: Final = 1200.0
PLOT: Final = DOCS / "images" / "adaptive.svg"

CLIENTS: Final[Mapping[str, Callable[[], Client | None]]] = {
    "no drain at all": lambda: None,
    "adaptive, 40/s allowed": lambda: Ours(40, 20),
    "fixed, a good guess: 8/s": lambda: Fixed(8, 20),
    "fixed, too careful: 4/s": lambda: Fixed(4, 20),
    "fixed, too bold: 12/s": lambda: Fixed(12, 20),
    "Postfix's feedback": Feedback,
    "no throttle, 50 connections": lambda: Fixed(None, 50),
}
_COLOURS = ("#555555", "#0b7a3e", "#1f5fbf", "#7a4fbf", "#c47a00", "#c2185b", "#b71c1c")


def outcomes() -> dict[str, Outcome]:
    """Simulate each; what it is called -> what came of it."""
    found = {}
    for name, make in CLIENTS.items():
        client = make()
        limit = LIMIT if client else QUIET_FOR
        found[name] = simulate(client, messages=MESSAGES, limit=limit, seed=SEED)
    return found


def figures(found: Mapping[str, Outcome]) -> str:
    """Return the table of docs/throttle.md."""
    rows = [
        (
            name,
            f"{outcome.took / 60:.0f} min" if outcome.delivered else "-",
            f"{outcome.quantile(0.5):.2f} s",
            f"{outcome.quantile(0.99):.2f} s",
            str(outcome.live_put_off),
        )
        for name, outcome in found.items()
    ]
    head = ("drain", "time to drain", "live p50", "live p99", "live mail put off")
    return table(head, rows)


def run() -> None:
    """Print the table, and write the plot."""
    found = outcomes()
    print(figures(found))
    PLOT.parent.mkdir(exist_ok=True)
    PLOT.write_text(plot(found), "utf-8")
    print(f"wrote {PLOT.relative_to(Path.cwd())}")


# ---- the plot


WIDTH, PANEL, LEFT, TOP, GAP, RIGHT = 860, 190, 62, 34, 62, 236
STEP = 20.0
"""Seconds of a point."""


def plot(found: Mapping[str, Outcome]) -> str:
    """Return an SVG: delivered over time, and how long live mail takes."""
    longest = max(o.took for o in found.values() if o.delivered)
    sent = {n: _sent(o) for n, o in found.items() if o.delivered}
    live = {n: _latency(o) for n, o in found.items()}
    height = TOP + 2 * PANEL + GAP + 46
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}">',
        '<g font-family="sans-serif" font-size="12">',
        "<title>Adaptive throttle against fixed rates, in simulation</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        *_panel(TOP, "messages delivered", sent, (longest, 0.0, float(MESSAGES))),
        *_panel(
            TOP + PANEL + GAP,
            "live mail: seconds that 95 % of each minute need at most",
            live,
            (longest, 0.0, 16.0),
        ),
        *_legend(found),
        "</g></svg>",
    ]
    return "\n".join(parts) + "\n"


def _panel(
    top: int,
    title: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    scale: tuple[float, float, float],
) -> Iterable[str]:
    longest, low, high = scale
    width = WIDTH - LEFT - RIGHT

    def place(x: float, y: float) -> str:
        inside = min(max(y, low), high)
        down = top + PANEL * (1 - (inside - low) / (high - low))
        return f"{LEFT + width * x / longest:.1f},{down:.1f}"

    yield f'<text x="{LEFT}" y="{top - 10}" font-weight="bold">{title}</text>'
    for n in range(5):
        value = low + (high - low) * n / 4
        down = top + PANEL * (1 - n / 4)
        yield (
            f'<path d="M{LEFT} {down:.1f}h{width}" stroke="#dddddd" fill="none"/>'
            f'<text x="{LEFT - 6}" y="{down + 4:.1f}" text-anchor="end">'
            f"{value:g}</text>"
        )
    for minutes in range(0, int(longest / 60) + 1, 5):
        x = LEFT + width * minutes * 60 / longest
        yield (
            f'<text x="{x:.1f}" y="{top + PANEL + 16}" text-anchor="middle">'
            f"{minutes} min</text>"
        )
    for name, points in lines.items():
        colour = _COLOURS[list(CLIENTS).index(name)]
        wide = 3 if name.startswith("adaptive") else 1.5
        path = " ".join(place(x, y) for x, y in points if x <= longest)
        yield (
            f'<polyline points="{path}" fill="none" stroke="{colour}"'
            f' stroke-width="{wide}"/>'
        )


def _legend(found: Mapping[str, Outcome]) -> Iterable[str]:
    for n, name in enumerate(found):
        y = TOP + 14 + 24 * n
        x = WIDTH - RIGHT + 20
        yield (
            f'<path d="M{x} {y}h22" stroke="{_COLOURS[n]}" stroke-width="3"/>'
            f'<text x="{x + 28}" y="{y + 4}">{name}</text>'
        )


def _sent(outcome: Outcome) -> list[tuple[float, float]]:
    times = sorted(outcome.delivered)
    steps = range(int(outcome.took / STEP) + 1)
    points, count = [], 0
    for n in steps:
        while count < len(times) and times[count] <= n * STEP:
            count += 1
        points.append((n * STEP, float(count)))
    return [*points, (outcome.took, float(len(times)))]


def _latency(outcome: Outcome) -> list[tuple[float, float]]:
    """Return the 95th percentile of each minute."""
    minutes: dict[int, list[float]] = {}
    for came, took in outcome.live:
        minutes.setdefault(int(came // 60), []).append(took)
    return [
        (60.0 * minute + 30, sorted(values)[int(0.95 * len(values))])
        for minute, values in sorted(minutes.items())
    ]
