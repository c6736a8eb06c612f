"""What deploy/ holds, loaded by the programs that it is for."""

from typing import Final

from tests.support.paths import ROOT

DEPLOY: Final = ROOT / "deploy"
DOCS: Final = DEPLOY.parent / "docs"
