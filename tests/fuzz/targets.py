"""Every target, by its name."""

from typing import Final

from tests.fuzz import scanners, smtp, spools, stores, text, typed
from tests.fuzz.target import Target

TARGETS: Final[dict[str, Target]] = {
    target.name: target
    for family in (spools, stores, smtp, scanners, text, typed)
    for target in family.targets()
}
