"""Tables for people: ids and addresses stay whole, and a row is one line.

On a terminal that is too narrow the least important columns go first. Then a column of
prose is cut, or folded where a table says so. Elsewhere every column is printed whole,
so that a pipe gets what it searches for. Memory holds one page of a long table.
"""

from collections.abc import Mapping, Sequence

from rich.text import Text

from drainer.cli.markup import LiteralConsole
from drainer.cli.output import stdout

PAGE_ROWS = 500
"""Rows of a page; each page has its own column widths."""
LEAST = 20
"""Characters of prose that are worth printing."""
GAP = 2
_INDENT = "    "
_MARKUP = frozenset("[\\")
_PARSER = LiteralConsole(highlight=False)


class Table:
    """Rows of cells, in which our own styles are markup (see cli.markup)."""

    def __init__(
        self,
        *columns: str,
        spare: Sequence[str] = (),
        cut: Sequence[str] = (),
        fold: str = "",
    ) -> None:
        """Start with no rows.

        ``spare`` are the columns that a narrow terminal can do without, the least
        important first. Columns to ``cut`` end with an ellipsis there. The last column
        may ``fold``.
        """
        self._columns = columns
        self._spare = spare
        self._prose = {*cut, fold} - {""}
        self._fold = fold
        self._rows: list[tuple[list[Text], Text | None]] = []
        self._printed = False
        self.count = 0

    def add(self, *cells: str, note: str = "") -> None:
        """Add a row; a terminal shows its note on a line of its own."""
        if len(self._rows) >= PAGE_ROWS:
            self._print()
        self.count += 1
        texts = [_text(cell) for cell in cells]
        self._rows.append((texts, _text(note) if note else None))

    def end(self) -> None:
        """Print what is left; an empty table prints only its columns."""
        if self._rows or not self._printed:
            self._print()

    def _print(self) -> None:
        console = stdout()
        widths = self._widths(console)
        head = [Text(name, style="bold") for name in self._columns]
        lines: list[Text] = []
        for cells, note in [(head, None), *self._rows]:
            lines += self._lines(cells, widths, console)
            if note is not None and console.is_terminal:
                folded = note.wrap(console, max(LEAST, console.width - len(_INDENT)))
                lines += [Text(_INDENT).append_text(line) for line in folded]
            elif note is not None:
                lines[-1].append(" " * GAP).append_text(note)
        console.print(Text("\n").join(lines), soft_wrap=True)
        self._printed = True
        self._rows = []

    def _widths(self, console: LiteralConsole) -> dict[str, int]:
        whole = {
            name: max([len(name), *(cells[n].cell_len for cells, _ in self._rows)])
            for n, name in enumerate(self._columns)
        }
        if not console.is_terminal:
            return whole
        least = {
            name: min(width, LEAST) if name in self._prose else width
            for name, width in whole.items()
        }
        for name in self._spare:
            if _line_width(least) <= console.width:
                break
            del least[name]
        left = max(0, console.width - _line_width(least))
        for name in [each for each in least if each in self._prose]:
            more = min(left, whole[name] - least[name])
            least[name] += more
            left -= more
        return least

    def _lines(
        self, cells: Sequence[Text], widths: Mapping[str, int], console: LiteralConsole
    ) -> list[Text]:
        """Return a row in its lines: one, unless its last column folds."""
        row, folded = Text(), [Text()]
        for name, cell in zip(self._columns, cells, strict=True):
            if name not in widths:
                continue
            if name == self._fold and cell.cell_len > widths[name]:
                folded = list(cell.wrap(console, widths[name]))
                break
            if name in self._prose:
                cell.truncate(widths[name], overflow="ellipsis")
            row.append_text(cell).append(" " * (widths[name] + GAP - cell.cell_len))
        indent = " " * row.cell_len
        rest = [Text(indent).append_text(line) for line in folded[1:]]
        found = [row.append_text(folded[0]), *rest]
        for line in found:
            line.rstrip()
        return found


def _line_width(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


def _text(cell: str) -> Text:
    """Return a cell; most have no markup, and are not searched for it."""
    if _MARKUP.isdisjoint(cell):
        return Text(cell)
    return _PARSER.render_str(cell)
