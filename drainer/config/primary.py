"""The primary, and how its health is asked for."""

import re
from datetime import timedelta
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from drainer.config.section import Duration, Section, settle_tls
from drainer.mail.envelope import AddressError, parse_mailbox


class PrimarySection(Section):
    """The server that is drained to."""

    host: str = Field("", description="name or address; `--to` wins over it")
    port: int = Field(25, ge=1, le=65535, description="TCP port")
    domains: tuple[str, ...] = Field(
        (),
        description="recipient domains to send (`.example.org`: those below it); others"
        " are held; empty = all",
    )
    tls: Literal["off", "opportunistic", "required"] = Field(
        "opportunistic",
        description="STARTTLS; `verify` or a username makes it required. Opportunistic"
        " sends in the clear where TLS fails",
    )
    verify: bool = Field(
        default=False,
        description="the certificate must be valid for `host`, by a subjectAltName; a"
        " username makes it true",
    )
    username: str = Field("", description="login for AUTH")
    password_file: str = Field("", description="file whose first line is the password")
    password: SecretStr = Field(
        SecretStr(""), description="better: password_file, or the environment"
    )
    helo: str = Field(
        "", description="our name for EHLO; empty = this host's full name"
    )
    forward_client: Literal["off", "xforward", "xclient", "auto"] = Field(
        "off",
        description="name the original client, where the primary offers it: for its"
        " log (XFORWARD), or for all of its checks (XCLIENT); auto = XCLIENT before"
        " XFORWARD",
    )
    connections: int = Field(5, ge=1, le=500, description="concurrent sessions")
    max_messages: int = Field(1000, ge=1, description="messages in one session")
    max_age: Duration = Field(timedelta(minutes=10), description="age of one session")
    max_recipients: int = Field(100, ge=1, description="recipients per transaction")
    max_hops: int = Field(
        48, ge=1, description="more Received fields are a loop; two under the primary's"
    )
    bare_newlines: Literal["hold", "space"] = Field(
        "hold", description="bare CR or LF: set aside, or replace by a blank"
    )
    rules: str = Field(
        "", description="file of rules about this server's replies (`classify --check`)"
    )
    connect_timeout: Duration = Field(timedelta(seconds=30), description="to connect")
    banner_timeout: Duration = Field(timedelta(minutes=5), description="banner, EHLO")
    command_timeout: Duration = Field(timedelta(minutes=5), description="MAIL, RCPT")
    data_timeout: Duration = Field(timedelta(minutes=2), description="DATA")
    body_timeout: Duration = Field(timedelta(minutes=3), description="a body block")
    dot_timeout: Duration = Field(
        timedelta(minutes=10), description="the final dot; less makes duplicates"
    )
    idle_timeout: Duration = Field(
        timedelta(seconds=10), description="a session without work is closed after it"
    )

    @field_validator("domains")
    @classmethod
    def _lower(cls, domains: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(domain.lower().rstrip(".") for domain in domains)

    @field_validator("helo")
    @classmethod
    def _is_name(cls, helo: str) -> str:
        if helo and not re.fullmatch(
            r"[A-Za-z0-9_.:-]{1,253}|\[[A-Za-z0-9.:]+\]", helo
        ):
            message = "legal: a host name, or an address in brackets"
            raise ValueError(message)
        return helo

    @model_validator(mode="after")
    def _secrets(self) -> "PrimarySection":
        settle_tls(self, "primary")
        if self.username and self.forward_client == "xclient":
            message = (
                'forward_client = "xclient" ends the login that a username asks for;'
                ' use "xforward", or no username'
            )
            raise ValueError(message)
        return self


class HealthSection(Section):
    """What `drainer check` asks the primary."""

    accept: tuple[str, ...] = Field(
        (), description="addresses that the primary must accept (known-good)"
    )
    reject: Literal["random", ""] = Field(
        "random", description='"random": a random address must be refused; "" = skip'
    )
    sender: str = Field("", description="reverse-path of the check; empty = <>")
    successes: int = Field(
        3, ge=1, le=100, description="good checks in a row before `watch` drains"
    )
    over: Duration = Field(
        timedelta(minutes=1), description="and they span at least so long"
    )
    interval: Duration = Field(
        timedelta(seconds=30),
        description="between two checks of `watch`; doubled while they fail",
    )
    longest: Duration = Field(
        timedelta(minutes=10), description="the longest of these pauses"
    )
    forget: Duration = Field(
        timedelta(hours=1),
        description="each failure after a good time doubles `successes` and `over`, up"
        " to 16 times; well for so long, that is forgotten",
    )

    @model_validator(mode="after")
    def _pauses(self) -> "HealthSection":
        if not timedelta(0) < self.interval <= self.longest:
            message = "interval is longer than longest, or no time at all"
            raise ValueError(message)
        return self

    @field_validator("accept", "sender")
    @classmethod
    def _addresses(cls, value: Any) -> Any:  # noqa: ANN401
        for address in (value,) if isinstance(value, str) else value:
            if address:
                try:
                    parse_mailbox(address)
                except AddressError as error:
                    raise ValueError(str(error)) from None
        return value
