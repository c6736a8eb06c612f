"""What becomes of refusals for good."""

import ipaddress
import re
from datetime import timedelta
from typing import Literal

from pydantic import (
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from drainer.config.section import Duration, Section, settle_tls
from drainer.mail.mailbox import ascii_domain
from drainer.policy.pacing.rate import parse_rate

_DELIMITERS = re.compile(r"[!#$%&'*+/=?^_`{|}~-]*")
"""What a local part may hold unquoted (RFC 5321 4.1.2), but letters and digits."""


class BounceSection(Section):
    """What becomes of refusals for good, and what proves a sender (docs/bounces.md)."""

    confirm_after: Duration | None = Field(
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
    via_tls: Literal["off", "opportunistic", "required"] = Field(
        "opportunistic",
        description="STARTTLS to it; `via_verify` or a username makes it required",
    )
    via_verify: bool = Field(
        default=False,
        description="its certificate must be valid, by a subjectAltName; a username"
        " makes it true",
    )
    via_username: str = Field("", description="login for AUTH there")
    via_password_file: str = Field(
        "", description="file whose first line is the password"
    )
    via_password: SecretStr = Field(
        SecretStr(""), description="better: via_password_file, or the environment"
    )
    mx_port: int = Field(25, ge=1, le=65535, description="port of those mail servers")
    mx_private: bool = Field(
        default=False,
        description="mail servers of senders may have private and loopback addresses:"
        " in a closed network",
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
    timeout: Duration = Field(
        timedelta(minutes=5),
        description="for one attempt to send a report, all servers together",
    )
    sender_per_hour: int = Field(
        3, ge=1, description="most reports to one mailbox in an hour"
    )
    sender_per_day: int = Field(
        10, ge=1, description="most reports to one mailbox in a day"
    )
    tag_delimiters: str = Field(
        "+",
        description="characters that begin a tag, as recipient_delimiter of Postfix:"
        " user+tag counts as user in these limits; empty = a tag makes another address",
    )
    domain_per_hour: int = Field(
        50, ge=1, description="most reports to a domain and all below it in an hour"
    )
    per_hour: int = Field(200, ge=1, description="most reports in an hour")
    per_run: int = Field(1000, ge=1, description="most reports that one run decides on")
    patience: Duration = Field(
        timedelta(hours=24),
        description="how long DNS may be silent about a sender before it counts as not"
        " proven",
    )
    dkim_key_file: str = Field(
        "", description="key (PEM, or Ed25519 in base64) that signs reports"
    )
    dkim_selector: str = Field("", description="its selector, at our own host name")
    authserv_ids: tuple[str, ...] = Field(
        (),
        description="names in Authentication-Results that the backup writes itself,"
        " above its Received, and removes from incoming mail; empty = none is believed",
    )
    backup_hosts: tuple[str, ...] = Field(
        (),
        description="other names of the backup: mail servers of these names are ours",
    )
    relay_domains: tuple[str, ...] = Field(
        (),
        description="domains that the backup takes mail for, besides [primary] domains;"
        " as senders they need a login or a signature",
    )
    trusted_networks: tuple[str, ...] = Field(
        (), description="networks whose clients are never forgers, like 192.0.2.0/24"
    )
    trusted_spf_domains: tuple[str, ...] = Field(
        (),
        description="other organisations whose SPF records and hosts prove a sender"
        " that names them: they let no customer send as another; empty = none",
    )
    dns_servers: tuple[str, ...] = Field(
        (), description="addresses of DNS servers; empty = those of the system"
    )
    dns_port: int = Field(53, ge=1, le=65535, description="port of dns_servers")
    dns_timeout: Duration = Field(
        timedelta(seconds=5), description="for one question to DNS"
    )
    dns_domain_budget: Duration = Field(
        timedelta(seconds=10),
        description="for all questions to one domain in 15m; after that what needs its"
        " answers is put off",
    )
    dns_run_budget: Duration = Field(
        timedelta(minutes=1),
        description="for messages whose DNS is slow, together, in one run; the rest is"
        " put off",
    )

    @model_validator(mode="after")
    def _signs(self) -> "BounceSection":
        parse_rate(self.rate)
        if bool(self.dkim_key_file) != bool(self.dkim_selector):
            message = "dkim_key_file and dkim_selector belong together"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _logs_in(self) -> "BounceSection":
        settle_tls(self, "bounce", "via_")
        if self.via == "mx" and self.via_verify:
            key = "via_username" if self.via_username else "via_verify"
            message = f'{key} is for one server, and via = "mx" names none'
            raise ValueError(message)
        return self

    @field_validator("authserv_ids", "backup_hosts")
    @classmethod
    def _lower(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name.lower().rstrip(".") for name in names)

    @field_validator("relay_domains", "trusted_spf_domains")
    @classmethod
    def _are_domains(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not ascii_domain(name.removeprefix(".")):
                message = (
                    f"{name!r} is not a domain; write example.org, or A-labels (xn--)"
                )
                raise ValueError(message)
        return tuple(name.lower().rstrip(".") for name in names)

    @field_validator("trusted_spf_domains")
    @classmethod
    def _are_of_one_owner(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        # The list of public suffixes takes time to load, and few need it here.
        from drainer.runtime.public_suffixes import is_public_suffix  # noqa: PLC0415

        for name in names:
            if is_public_suffix(ascii_domain(name.removeprefix("."))):
                message = f"{name!r} belongs to no single organisation"
                raise ValueError(message)
        return names

    @field_validator("tag_delimiters")
    @classmethod
    def _are_delimiters(cls, characters: str) -> str:
        if not _DELIMITERS.fullmatch(characters):
            message = f"{characters!r} are not delimiters; write one or some of +-=_#"
            raise ValueError(message)
        return characters

    @field_validator("trusted_networks", "dns_servers")
    @classmethod
    def _are_addresses(
        cls, values: tuple[str, ...], info: ValidationInfo
    ) -> tuple[str, ...]:
        networks = info.field_name == "trusted_networks"
        for value in values:
            (ipaddress.ip_network if networks else ipaddress.ip_address)(value)
        return values
