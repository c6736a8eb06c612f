"""Where the project's files are, for tests in any folder."""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
"""The project's own folder."""

DATA: Final = ROOT / "tests" / "data"
"""Samples of real servers."""
