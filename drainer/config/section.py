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


def check_login(tls: str, *, has_password: bool, named: str) -> None:
    """Raise ValueError when a login lacks its password, or would show it to all.

    ``named`` is what the password's keys begin with, as in ``DRAINER_PRIMARY__``.
    """
    if tls == "off":
        message = 'a username with tls = "off" would send the password in the clear'
        raise ValueError(message)
    if not has_password:
        key = named.rpartition("__")[2].lower()
        message = f"a username needs {key}password_file, or {named}PASSWORD"
        raise ValueError(message)
