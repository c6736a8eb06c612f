"""Value objects are msgspec's, whole: a default of another kind would be a value."""

import dataclasses
import importlib
from typing import Any

import msgspec

from tests.support.rows import every_row
from tests.test_layers import MODULES


def structs(module: str) -> list[Any]:
    """Return the value objects of a module."""
    found = vars(importlib.import_module(module)).values()
    kinds = [each for each in found if isinstance(each, type)]
    return [kind for kind in kinds if issubclass(kind, msgspec.Struct)]


@every_row(m for m in MODULES if not m.endswith("__main__"))
def test_a_default_is_no_field_of_a_dataclass(module: str) -> None:
    """``dataclasses.field`` in a Struct gives a Field instead of a default."""
    for kind in structs(module):
        defaults = kind.__struct_defaults__
        assert not [each for each in defaults if isinstance(each, dataclasses.Field)]
