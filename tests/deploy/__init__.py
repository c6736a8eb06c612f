"""What deploy/ holds, loaded by the programs that it is for."""

from pathlib import Path
from typing import Final

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
DOCS: Final = DEPLOY.parent / "docs"
