"""Every target, by its name."""

from typing import Final

from tests.fuzz import smtp, spools, stores, text, typed
from tests.fuzz.target import Target

TARGETS: Final[dict[str, Target]] = {
    target.name: target
    for family in (spools, stores, smtp, text, typed)
    for target in family.targets()
}
