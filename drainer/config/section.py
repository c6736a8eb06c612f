"""What every section has in common."""

from datetime import timedelta
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer

from drainer.runtime.units import format_duration, parse_duration

Duration = Annotated[
    timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration)
]


class Section(BaseModel):
    """A table of the file: closed, so that a misspelt key is noticed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def settle_tls(section: Section, name: str, prefix: str = "") -> None:
    """Put into a section what its keys about TLS and a login mean together.

    A login makes a valid certificate necessary, and that makes TLS required: otherwise
    mail or a password goes in the clear where an attacker breaks the handshake. Raises
    ValueError for a key that says otherwise. ``prefix`` is what the keys start with.
    """
    tls, verify, username = (f"{prefix}{key}" for key in ("tls", "verify", "username"))
    login, given = bool(getattr(section, username)), section.model_fields_set
    if login and verify in given and not getattr(section, verify):
        words = "the password could go to any server"
        raise _contradiction(username, f"{verify} = false", words, f"{verify} = true")
    if login or getattr(section, verify):
        chosen = getattr(section, tls)
        if tls in given and chosen != "required":
            first = username if login else f"{verify} = true"
            words = "mail or a password could go in the clear"
            raise _contradiction(
                first, f'{tls} = "{chosen}"', words, f'{tls} = "required"'
            )
        _check_password(section, name, prefix)
        section.__dict__.update({tls: "required", verify: True})  # frozen for others


def _contradiction(first: str, second: str, words: str, right: str) -> ValueError:
    message = f"{first} and {second} contradict each other: {words}; set {right}"
    return ValueError(message)


def _check_password(section: Section, name: str, prefix: str) -> None:
    """Raise ValueError for a login without a password."""
    login, *passwords = (
        getattr(section, f"{prefix}{key}")
        for key in ("username", "password_file", "password")
    )
    if login and not any(passwords):
        variable = f"DRAINER_{name}__{prefix}PASSWORD".upper()
        message = f"{prefix}username needs {prefix}password_file, or {variable}"
        raise ValueError(message)
