"""What all sections have in common."""

from datetime import timedelta
from typing import Annotated, Any, TypeVar, get_origin, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
)

from drainer.mail.envelope import domain_key
from drainer.mail.mailbox import ascii_domain
from drainer.policy.pacing.rate import parse_size
from drainer.runtime.units import format_duration, parse_duration

Duration = Annotated[
    timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration)
]

T = TypeVar("T")


class Section(BaseModel):
    """A table of the file; an unknown key is an error, because it may be misspelt."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def values_for(
        self, kind: type[T], *, prefix: str = "", suffix: str = "", **others: object
    ) -> T:
        """Return a value of ``kind``: each field that is a key here has its value.

        The keys start with ``prefix`` and end with ``suffix``, the fields do not.
        ``others`` are fields that no key has, or not in this form. A duration becomes
        seconds, and a list a set, if the field is one.
        """
        found: dict[str, Any] = {}
        for name, wanted in get_type_hints(kind).items():
            key = f"{prefix}{name}{suffix}"
            if name not in others and key in type(self).model_fields:
                found[name] = _convert(getattr(self, key), wanted)
        return kind(**found, **others)


def _convert(value: Any, wanted: Any) -> Any:  # noqa: ANN401 - of any field
    if wanted is float and isinstance(value, timedelta):
        return value.total_seconds()
    return frozenset(value) if get_origin(wanted) is frozenset else value


def _domain_names(domains: tuple[str, ...]) -> tuple[str, ...]:
    """Return recipient domains as the ledger has them; ValueError if one is none."""
    for domain in domains:
        name = domain.removeprefix(".")
        is_literal = name.startswith("[") and name.endswith("]")
        if not (is_literal or ascii_domain(name)):
            right = "write example.org, or .example.org for the domains below it"
            raise ValueError(f"{domain[:80]!r} is not a domain; {right}")
    return tuple(map(domain_key, domains))


DomainNames = Annotated[tuple[str, ...], AfterValidator(_domain_names)]


def _check_size(text: str) -> str:
    parse_size(text)
    return text


Size = Annotated[str, AfterValidator(_check_size)]
"""A number of bytes as people write it, such as 25MB."""


def settle_tls(section: Section, name: str, prefix: str = "") -> None:
    """Set the TLS keys of a section to what its login and ``verify`` require.

    A login needs a valid certificate, and that needs TLS. Otherwise an attacker who
    breaks the handshake could read mail or a password. Raises ValueError for a key that
    contradicts this. The names of the keys start with ``prefix``.
    """
    tls, verify, username = (f"{prefix}{key}" for key in ("tls", "verify", "username"))
    login, given = bool(getattr(section, username)), section.model_fields_set
    if login and verify in given and not getattr(section, verify):
        words = "drainer could send the password to any server"
        raise _contradiction(username, f"{verify} = false", words, f"{verify} = true")
    if login or getattr(section, verify):
        chosen = getattr(section, tls)
        if tls in given and chosen not in ("required", "implicit", "dane"):
            first = username if login else f"{verify} = true"
            words = "mail or a password could go unencrypted"
            raise _contradiction(
                first, f'{tls} = "{chosen}"', words, f'{tls} = "required"'
            )
        _check_password(section, name, prefix)
        known = chosen if chosen in ("implicit", "dane") else "required"
        section.__dict__.update({tls: known, verify: True})  # frozen for others


def _contradiction(first: str, second: str, words: str, right: str) -> ValueError:
    message = f"{first} and {second} contradict each other: {words}; set {right}"
    return ValueError(message)


def _check_password(section: Section, name: str, prefix: str) -> None:
    """Raise ValueError for a login without a password."""
    login, *passwords = (
        getattr(section, f"{prefix}{key}")
        for key in ("username", "password_file", "password")
    )
    command = getattr(section, "token_command", "")
    if command and any(passwords):
        raise ValueError("set token_command or a password, not both")
    if login and not any(passwords) and not command:
        variable = f"DRAINER_{name}__{prefix}PASSWORD".upper()
        raise ValueError(f"{prefix}username needs {prefix}password_file, or {variable}")
