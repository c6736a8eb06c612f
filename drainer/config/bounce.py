"""When a recipient is refused permanently: the bounce, its evidence and its limits."""

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
"""What an unquoted local part may contain besides letters and digits (RFC 5321)."""


class BounceSection(Section):
    """Bounces: when they are sent, how, and what proves a sender (docs/bounces.md)."""

    confirm_after: Duration | None = Field(
        None,
        description="Confirmation delay: how long a permanently refused recipient waits"
        " for its second attempt. Empty = 1h, and 4h on the first day after an outage.",
    )
    send: bool = Field(
        default=True,
        description="Send bounces to proven senders. false = never send one; drainer"
        " puts the message into quarantine instead.",
    )
    via: str = Field(
        "localhost:25",
        description="Where drainer sends bounces. HOST[:PORT] = a relay that accepts"
        " mail for every domain; mx = the mail servers of the sender's domain.",
    )
    via_tls: Literal["off", "opportunistic", "required"] = Field(
        "opportunistic",
        description="STARTTLS to the relay. `via_verify` or a username makes it"
        " required.",
    )
    via_verify: bool = Field(
        default=False,
        description="Require a valid certificate that names the relay in a"
        " subjectAltName. A username makes it true.",
    )
    via_username: str = Field("", description="User name for AUTH at the relay.")
    via_password_file: str = Field(
        "", description="File whose first line is the password for the relay."
    )
    via_password: SecretStr = Field(
        SecretStr(""),
        description="Password for the relay. Better: via_password_file, or the"
        " environment.",
    )
    mx_port: int = Field(
        25, ge=1, le=65535, description="TCP port of the mail servers, if via = mx."
    )
    mx_private: bool = Field(
        default=False,
        description="Send to mail servers with private or loopback addresses, if via ="
        " mx. Set it only in a closed network.",
    )
    rate: str = Field(
        "1/second", description="Most bounces per time, written as [throttle] rate."
    )
    settle: Duration = Field(
        timedelta(minutes=10),
        description="How long a bounce waits for other refused recipients of the same"
        " message.",
    )
    retry: Duration = Field(
        timedelta(minutes=1),
        description="First delay after a bounce could not be sent. It doubles with each"
        " attempt, up to 1h.",
    )
    timeout: Duration = Field(
        timedelta(minutes=5),
        description="Time limit of one attempt to send a bounce, all servers together.",
    )
    sender_per_hour: int = Field(
        3, ge=1, description="Most bounces to one mailbox in an hour."
    )
    sender_per_day: int = Field(
        10, ge=1, description="Most bounces to one mailbox in a day."
    )
    tag_delimiters: str = Field(
        "+",
        description="Characters that separate a tag, as recipient_delimiter of Postfix:"
        " these limits and lists of recipients take user+tag for user. Empty = each tag"
        " is another mailbox.",
    )
    domain_per_hour: int = Field(
        50,
        ge=1,
        description="Most bounces to one domain and its subdomains in an hour.",
    )
    per_hour: int = Field(200, ge=1, description="Most bounces in an hour.")
    per_run: int = Field(
        1000, ge=1, description="Most bounces that one run decides to send."
    )
    patience: Duration = Field(
        timedelta(hours=24),
        description="How long drainer waits for DNS to answer about a sender. After"
        " that the sender counts as not proven.",
    )
    dkim_key_file: str = Field(
        "",
        description="File with the private key (PEM, or Ed25519 in base64) that signs"
        " bounces with DKIM. Empty = they are not signed.",
    )
    dkim_selector: str = Field(
        "", description="DKIM selector of that key, in the domain of our host name."
    )
    authserv_ids: tuple[str, ...] = Field(
        (),
        description="Server names that the backup writes into Authentication-Results"
        " above its Received, and removes from incoming mail. Empty = believe none.",
    )
    backup_hosts: tuple[str, ...] = Field(
        (),
        description="Other host names of the backup. drainer treats mail servers of"
        " these names as ours.",
    )
    relay_domains: tuple[str, ...] = Field(
        (),
        description="Domains besides [primary] domains that the backup accepts mail"
        " for. Their senders need a login or a signature to be proven.",
    )
    trusted_networks: tuple[str, ...] = Field(
        (),
        description="Networks whose mail has a proven sender, such as 192.0.2.0/24.",
    )
    trusted_spf_domains: tuple[str, ...] = Field(
        (),
        description="Providers whose SPF records and hosts prove a sender. List only"
        " those that let no customer send as another customer. Empty = none.",
    )
    dns_servers: tuple[str, ...] = Field(
        (),
        description="Addresses of the DNS servers to ask. Empty = those of the system.",
    )
    dns_port: int = Field(
        53, ge=1, le=65535, description="Port of the servers in dns_servers."
    )
    dns_timeout: Duration = Field(
        timedelta(seconds=5), description="Time limit of one DNS query."
    )
    dns_domain_budget: Duration = Field(
        timedelta(seconds=10),
        description="Time limit of all DNS queries for one domain in 15m. After that,"
        " drainer postpones the messages that need the answers.",
    )
    dns_run_budget: Duration = Field(
        timedelta(minutes=1),
        description="Time limit of one run for messages whose DNS is slow, all"
        " together. drainer postpones the rest.",
    )

    @model_validator(mode="after")
    def _signs(self) -> "BounceSection":
        parse_rate(self.rate)
        if bool(self.dkim_key_file) != bool(self.dkim_selector):
            raise ValueError("set both dkim_key_file and dkim_selector, or neither")
        return self

    @model_validator(mode="after")
    def _logs_in(self) -> "BounceSection":
        settle_tls(self, "bounce", "via_")
        if self.via == "mx" and self.via_verify:
            key = "via_username" if self.via_username else "via_verify"
            raise ValueError(f'{key} needs one relay, but via = "mx" names none')
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
                raise ValueError(
                    f"{name!r} is not a domain; write example.org, or A-labels (xn--)"
                )
        return tuple(name.lower().rstrip(".") for name in names)

    @field_validator("trusted_spf_domains")
    @classmethod
    def _are_of_one_owner(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        # The list of public suffixes takes long to load, and few commands need it.
        from drainer.runtime.public_suffixes import is_public_suffix  # noqa: PLC0415

        for name in names:
            if is_public_suffix(ascii_domain(name.removeprefix("."))):
                message = f"{name!r} is a public suffix, not one organisation's domain"
                raise ValueError(message)
        return names

    @field_validator("tag_delimiters")
    @classmethod
    def _are_delimiters(cls, characters: str) -> str:
        if not _DELIMITERS.fullmatch(characters):
            message = f"{characters!r} are not delimiters; write one or more of +-=_#"
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
