"""drainer.toml and the environment -> one frozen Config, built once.

The only module that sees the configuration file or the environment. Every key
may be given as DRAINER_SECTION__KEY; flags of a command win over both. Unknown
keys, bad units and contradictions are errors that name file, line and key.
"""

import ipaddress
import re
import socket
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from drainer.mail.envelope import AddressError, parse_mailbox
from drainer.policy.facts import SHARED_PROVIDERS
from drainer.policy.throttle import message_rate, parse_rate
from drainer.units import format_duration, parse_duration

Duration = Annotated[
    timedelta, BeforeValidator(parse_duration), PlainSerializer(format_duration)
]


class Section(BaseModel):
    """A table of the file: closed, so that a misspelt key is noticed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Primary(Section):
    """The server that is drained to."""

    host: str = Field("", description="name or address; `--to` wins over it")
    port: int = Field(25, ge=1, le=65535, description="TCP port")
    domains: tuple[str, ...] = Field(
        (),
        description="recipient domains to send (`.example.org`: those below it); others"
        " are held; empty = all",
    )
    tls: Literal["off", "opportunistic", "required"] = Field(
        "opportunistic", description="STARTTLS; a username makes it required"
    )
    verify: bool = Field(
        default=False,
        description="the certificate must be valid for the host; a username"
        " makes it true",
    )
    username: str = Field("", description="login for AUTH")
    password_file: str = Field("", description="file whose first line is the password")
    password: SecretStr = Field(
        SecretStr(""), description="better: password_file, or the environment"
    )
    helo: str = Field(
        "", description="our name for EHLO; empty = this host's full name"
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
    def _secrets(self) -> "Primary":
        if self.username and self.tls == "off":
            message = 'a username with tls = "off" would send the password in the clear'
            raise ValueError(message)
        if self.username and not (self.password_file or self.password):
            message = "a username needs password_file, or DRAINER_PRIMARY__PASSWORD"
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


class ThrottleSection(Section):
    """How fast mail may go to the primary."""

    rate: str = Field(
        "10/second", description="messages: /second, /minute, /hour, or unlimited"
    )
    burst: int | None = Field(
        None, description="messages at once; at most one second's worth"
    )
    bytes: str = Field("unlimited", description="content octets, e.g. 5MB/second")
    ramp: Duration = Field(
        timedelta(minutes=2), description="from one connection to all of them"
    )

    @field_validator("rate", "bytes")
    @classmethod
    def _is_rate(cls, value: str, info: ValidationInfo) -> str:
        parse_rate(value, sized=info.field_name == "bytes")
        return value

    @model_validator(mode="after")
    def _sane(self) -> "ThrottleSection":
        rate = parse_rate(self.rate)
        if rate is not None:
            message_rate(rate, self.burst)
        return self


class RetrySection(Section):
    """When a temporary failure is tried again."""

    first: Duration = Field(timedelta(minutes=1), description="first delay")
    factor: float = Field(2.0, ge=1, le=10, description="growth of the delay")
    max: Duration = Field(timedelta(minutes=30), description="longest delay")
    jitter: float = Field(0.2, ge=0, le=0.9, description="share by which it is spread")
    long_first: Duration = Field(
        timedelta(hours=1), description="first delay for a full mailbox and the like"
    )
    long_max: Duration = Field(timedelta(hours=6), description="longest of those")
    unknown: Duration = Field(
        timedelta(minutes=5), description="rest after a lost reply to the final dot"
    )
    lifetime: Duration = Field(
        timedelta(days=5),
        description="sum of the delays after which it is refused for good; they run"
        " only while the primary answers",
    )
    quota: Duration = Field(
        timedelta(days=3), description="the same for a full mailbox"
    )

    @model_validator(mode="after")
    def _grows(self) -> "RetrySection":
        for first, last in (("first", "max"), ("long_first", "long_max")):
            if getattr(self, first) > getattr(self, last):
                message = f"{first} is longer than {last}"
                raise ValueError(message)
        return self


class GateSection(Section):
    """What happens when the primary refuses us."""

    pauses: tuple[Duration, ...] = Field(
        tuple(timedelta(minutes=m) for m in (1, 2, 5, 10, 15)),
        min_length=1,
        description="pauses after a temporary refusal before MAIL, one after another",
    )
    give_up_after: Duration = Field(
        timedelta(minutes=15),
        description="how long `drain` waits without a success (--give-up-after)",
    )

    run: int = Field(
        3,
        ge=2,
        description="refusals of the same kind in a row, of different senders and"
        " recipients, that are suspicious; one less where the reply says little",
    )
    contents: int = Field(10, ge=2, description="the same when contents are refused")
    votes: int = Field(
        20, ge=2, description="of so many recipients, more than half refused are"
    )
    first_votes: int = Field(
        5, ge=2, description="and so are the first ones, all refused"
    )
    brake_least: int = Field(
        10, ge=0, description="so many pending refusals never put the brake on"
    )
    brake_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="of all recipients handled: more pending refusals put it on, and"
        " none becomes final",
    )


class BounceSection(Section):
    """What becomes of refusals for good, and what proves a sender (docs/bounces.md)."""

    escrow: Duration | None = Field(
        None,
        description="how long one rests before it is tried for confirmation; empty ="
        " 1h, and 4h on the first day after an outage",
    )
    send: bool = Field(
        default=True,
        description="tell proven senders; false: nobody is told, and what is final is"
        " quarantined",
    )
    via: str = Field(
        "localhost:25",
        description="where reports go: HOST[:PORT] takes mail for everybody; mx = the"
        " mail servers of the sender",
    )
    rate: str = Field("1/second", description="reports, as [throttle] rate")
    settle: Duration = Field(
        timedelta(minutes=10),
        description="how long a report waits for other recipients of its message",
    )
    retry: Duration = Field(
        timedelta(minutes=1),
        description="first delay of a report that was not taken, doubled up to 1h",
    )
    dkim_key_file: str = Field(
        "", description="key (PEM, or Ed25519 in base64) that signs reports"
    )
    dkim_selector: str = Field("", description="its selector, at our own host name")
    authserv_ids: tuple[str, ...] = Field(
        (),
        description="names in Authentication-Results that the backup writes itself, and"
        " removes from incoming mail; empty = none is believed",
    )
    backup_hosts: tuple[str, ...] = Field(
        (),
        description="names behind `by` in the backup's own Received; empty ="
        " authserv_ids",
    )
    relay_domains: tuple[str, ...] = Field(
        (),
        description="domains that the backup takes mail for, besides [primary] domains;"
        " as senders they need a login or a signature",
    )
    trusted_networks: tuple[str, ...] = Field(
        (), description="networks whose clients are never forgers, like 192.0.2.0/24"
    )
    weak_providers: tuple[str, ...] = Field(
        SHARED_PROVIDERS,
        description="domains of SPF records that many customers share: a pass by one"
        " of them proves little",
    )
    dns_servers: tuple[str, ...] = Field(
        (), description="addresses of DNS servers; empty = those of the system"
    )
    dns_port: int = Field(53, ge=1, le=65535, description="port of dns_servers")
    dns_timeout: Duration = Field(
        timedelta(seconds=5), description="for one question to DNS"
    )

    @model_validator(mode="after")
    def _signs(self) -> "BounceSection":
        parse_rate(self.rate)
        if bool(self.dkim_key_file) != bool(self.dkim_selector):
            message = "dkim_key_file and dkim_selector belong together"
            raise ValueError(message)
        return self

    @field_validator("authserv_ids", "backup_hosts", "relay_domains", "weak_providers")
    @classmethod
    def _lower(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name.lower().rstrip(".") for name in names)

    @field_validator("trusted_networks", "dns_servers")
    @classmethod
    def _are_addresses(
        cls, values: tuple[str, ...], info: ValidationInfo
    ) -> tuple[str, ...]:
        networks = info.field_name == "trusted_networks"
        for value in values:
            (ipaddress.ip_network if networks else ipaddress.ip_address)(value)
        return values


class LedgerSection(Section):
    """Where drainer remembers."""

    url: str = Field("", description="a path or database URL; empty = the default")


class TelemetrySection(Section):
    """Traces."""

    traces: str = Field("off", description="off, console, otlp, or file:PATH")
    endpoint: str = Field(
        "http://127.0.0.1:4318/v1/traces", description="OTLP/HTTP endpoint"
    )
    addresses: Literal["plain", "hashed"] = Field(
        "hashed", description="mailboxes in traces"
    )

    @field_validator("traces")
    @classmethod
    def _known(cls, value: str) -> str:
        if value in ("off", "console", "otlp") or value.removeprefix("file:") != value:
            return value
        message = "legal: off, console, otlp, file:PATH"
        raise ValueError(message)


class SourceSection(BaseModel):
    """A named source: its URL, and options of its format."""

    model_config = ConfigDict(extra="allow", frozen=True)

    url: str = Field(description="as on the command line")


class Config(BaseSettings):
    """Everything that is in force."""

    model_config = SettingsConfigDict(
        env_prefix="DRAINER_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )
    file: ClassVar[Path | None] = None

    primary: Primary = Primary()
    health: HealthSection = HealthSection()
    throttle: ThrottleSection = ThrottleSection()
    retry: RetrySection = RetrySection()
    gate: GateSection = GateSection()
    bounce: BounceSection = BounceSection()
    ledger: LedgerSection = LedgerSection()
    telemetry: TelemetrySection = TelemetrySection()
    sources: dict[str, SourceSection] = Field(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let flags win over the environment, and that over the file."""
        del dotenv_settings, file_secret_settings
        toml = TomlConfigSettingsSource(settings_cls, toml_file=cls.file)
        return init_settings, env_settings, toml


def own_hostname() -> str:
    """Return this host's full name, for EHLO."""
    return socket.getfqdn()
