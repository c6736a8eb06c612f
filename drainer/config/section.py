"""What every section has in common."""

from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from drainer.units import format_duration, parse_duration

Duration = Annotated[
    timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration)
]


class Section(BaseModel):
    """A table of the file: closed, so that a misspelt key is noticed."""

    model_config = ConfigDict(extra="forbid", frozen=True)
