"""The primary, and how drainer checks its health."""

import re
from datetime import timedelta
from typing import Any, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from drainer.config.section import Duration, Section, settle_tls
from drainer.mail.envelope import AddressError, parse_mailbox
from drainer.policy.pacing.rate import parse_size


class PrimarySection(Section):
    """The server that drainer delivers to."""

    host: str = Field("", description="Host name or address. `--to` overrides it.")
    port: int = Field(25, ge=1, le=65535, description="TCP port.")
    domains: tuple[str, ...] = Field(
        (),
        description="Recipient domains to deliver (`.example.org` = its subdomains)."
        " drainer holds recipients of other domains. Empty = deliver all domains.",
    )
    tls: Literal["off", "opportunistic", "required"] = Field(
        "opportunistic",
        description="STARTTLS. `opportunistic` sends unencrypted where TLS fails."
        " `verify` or a username makes it required.",
    )
    tls_minimum: Literal["1.0", "1.1", "1.2", "1.3"] = Field(
        "1.2",
        description="Lowest version of TLS. 1.0 and 1.1 also allow short keys and old"
        " ciphers, for a primary that has nothing better.",
    )
    verify: bool = Field(
        default=False,
        description="Require a valid certificate that names `host` in a"
        " subjectAltName. A username makes it true.",
    )
    username: str = Field("", description="User name for AUTH. Empty = no login.")
    password_file: str = Field("", description="File whose first line is the password.")
    password: SecretStr = Field(
        SecretStr(""),
        description="Password for AUTH. Better: password_file, or the environment.",
    )
    helo: str = Field(
        "", description="Our name in EHLO. Empty = the full name of this host."
    )
    forward_client: Literal["off", "xforward", "xclient", "auto"] = Field(
        "off",
        description="Pass on the original client where the primary offers it: in its"
        " log (XFORWARD), or for all its checks (XCLIENT). auto = XCLIENT, else"
        " XFORWARD.",
    )
    connections: int = Field(
        5, ge=1, le=500, description="Most connections at the same time."
    )
    max_messages: int = Field(
        1000, ge=1, description="Most messages in one connection."
    )
    max_age: Duration = Field(
        timedelta(minutes=10), description="drainer closes a connection of this age."
    )
    max_recipients: int = Field(
        100, ge=1, description="Most recipients in one transaction."
    )
    max_hops: int = Field(
        48,
        ge=1,
        description="drainer holds a message with more Received fields as a mail loop."
        " Set it two below the limit of the primary.",
    )
    bare_newlines: Literal["hold", "space"] = Field(
        "hold",
        description="A bare CR or LF in a message: hold the message, or send a space"
        " instead.",
    )
    rules: str = Field(
        "",
        description="File with your own rules about this server's replies (test it with"
        " `drainer classify --check`). Empty = none.",
    )
    connect_timeout: Duration = Field(
        timedelta(seconds=30), description="Time limit to connect."
    )
    banner_timeout: Duration = Field(
        timedelta(minutes=5), description="Time limit for the banner and for EHLO."
    )
    command_timeout: Duration = Field(
        timedelta(minutes=5), description="Time limit for MAIL and for RCPT."
    )
    data_timeout: Duration = Field(
        timedelta(minutes=2), description="Time limit for DATA."
    )
    body_timeout: Duration = Field(
        timedelta(minutes=3), description="Time limit to send one block of content."
    )
    dot_timeout: Duration = Field(
        timedelta(minutes=10),
        description="Time limit for the reply to the final dot. A shorter one causes"
        " duplicates.",
    )
    idle_timeout: Duration = Field(
        timedelta(seconds=10),
        description="drainer closes a connection that has had nothing to send for this"
        " long.",
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

    keep: Duration = Field(
        timedelta(0),
        description="How long drainer keeps a copy of delivered mail that its source"
        " drops, for a replay. 0s = no copies.",
    )
    keep_size: str = Field(
        "1GB", description="The most that these copies may take; the oldest go first."
    )

    @field_validator("keep_size")
    @classmethod
    def _is_size(cls, value: str) -> str:
        parse_size(value)
        return value

    @model_validator(mode="after")
    def _secrets(self) -> "PrimarySection":
        settle_tls(self, "primary")
        if self.username and self.forward_client == "xclient":
            message = (
                'forward_client = "xclient" resets the login that username needs;'
                ' use "xforward", or remove username'
            )
            raise ValueError(message)
        return self


class HealthSection(Section):
    """How `drainer check` and `drainer watch` check the primary."""

    accept: tuple[str, ...] = Field(
        (), description="Known-good recipients: the primary must accept them."
    )
    reject: Literal["random", ""] = Field(
        "random",
        description='"random" = the primary must refuse a random address; "" = skip'
        " this test.",
    )
    sender: str = Field(
        "", description="Reverse-path of the check. Empty = the null sender <>."
    )
    successes: int = Field(
        3,
        ge=1,
        le=100,
        description="Successful checks in a row before `watch` starts a drain.",
    )
    over: Duration = Field(
        timedelta(minutes=1),
        description="Least time between the first and the last of these checks.",
    )
    interval: Duration = Field(
        timedelta(seconds=30),
        description="Time between two checks of `watch`. It doubles while they fail.",
    )
    longest: Duration = Field(
        timedelta(minutes=10), description="Longest time between two checks."
    )
    forget: Duration = Field(
        timedelta(hours=1),
        description="Each failure of a healthy primary doubles `successes` and `over`,"
        " up to 16-fold. After it was healthy for this long, drainer forgets them.",
    )

    @model_validator(mode="after")
    def _pauses(self) -> "HealthSection":
        if not timedelta(0) < self.interval <= self.longest:
            message = "interval must be more than 0s and at most longest"
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
