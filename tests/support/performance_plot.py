"""The curves of docs/performance.md as one picture: ``make docs`` draws it again.

The figures are those of the tables there, so that both say the same.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Final

from tests.support.paths import ROOT

PAGE: Final = ROOT / "docs" / "performance.md"
PICTURE: Final = ROOT / "docs" / "images" / "performance.svg"
CURVES: Final = (
    "messages in the queue", "size of a message", "connections", "round trip",
)  # fmt: skip
"""How the first column of a table starts, which is the title of its panel."""
CLIENTS: Final[Mapping[str, str]] = {"`postqueue -f`": "#b71c1c", "drainer": "#0b7a3e"}
"""The columns that are drawn, and their colours."""

WIDTH, HEIGHT, PANEL, MARGIN, GAP = 860, 560, 330, 60, 80
LINE, TALL = 4, 170
Point = tuple[str, float]


def plot(page: str) -> str:
    """Return an SVG with a panel for each curve of the page."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">',
        '<g font-family="sans-serif" font-size="12">',
        "<title>Messages per second: postqueue -f and drainer</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        *_legend(),
    ]
    for n, column in enumerate(CURVES):
        left = MARGIN + n % 2 * (PANEL + GAP)
        top = 60 + n // 2 * (TALL + GAP)
        parts += _panel(left, top, column, curves(page, column))
    return "\n".join([*parts, "</g></svg>"]) + "\n"


def curves(page: str, column: str) -> dict[str, list[Point]]:
    """Return the points of each client in the table with this first column."""
    start = re.search(rf"^\| {re.escape(column)}\b.*\|$", page, re.MULTILINE)
    if start is None:
        raise ValueError(f"no table starts with {column!r}")
    head, _, *rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page[start.start() :].partition("\n\n")[0].splitlines()
    ]
    return {
        client: [
            (row[0], float(row[head.index(client)].replace(",", ""))) for row in rows
        ]
        for client in CLIENTS
    }


def _panel(
    left: int, top: int, title: str, lines: Mapping[str, list[Point]]
) -> Iterable[str]:
    """Draw one curve: its points at even distances, as its table has them."""
    most = max(value for points in lines.values() for _, value in points)
    unit = 10 ** math.floor(math.log10(most))
    high = math.ceil(most / unit) * unit
    labels = [label for label, _ in next(iter(lines.values()))]
    step = PANEL / (len(labels) - 1)
    yield f'<text x="{left}" y="{top - 12}" font-weight="bold">{title}</text>'
    for n in range(LINE + 1):
        y = top + TALL * (1 - n / LINE)
        yield (
            f'<path d="M{left} {y:.1f}h{PANEL}" stroke="#dddddd" fill="none"/>'
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">'
            f"{high * n / LINE:,.0f}</text>"
        )
    for n, label in enumerate(labels):
        yield (
            f'<text x="{left + n * step:.1f}" y="{top + TALL + 18}"'
            f' text-anchor="middle">{label}</text>'
        )
    for client, points in lines.items():
        places = [
            f"{left + n * step:.1f},{top + TALL * (1 - value / high):.1f}"
            for n, (_, value) in enumerate(points)
        ]
        yield (
            f'<polyline points="{" ".join(places)}" fill="none"'
            f' stroke="{CLIENTS[client]}" stroke-width="2.5"/>'
        )


def _legend() -> Iterable[str]:
    yield f'<text x="{MARGIN}" y="22">messages per second</text>'
    for n, (client, colour) in enumerate(CLIENTS.items()):
        x = MARGIN + 170 + 140 * n
        yield (
            f'<path d="M{x} 18h22" stroke="{colour}" stroke-width="3"/>'
            f'<text x="{x + 28}" y="22">{client.strip("`")}</text>'
        )
