"""The HTTP server of `drainer watch`: health hooks, metrics, the status page."""

import ipaddress
import re

from pydantic import Field, SecretStr, field_validator, model_validator

from drainer.config.section import Section
from drainer.policy.pacing.rate import parse_rate

_NAME = re.compile(r"[a-z0-9._-]{1,253}(?::[0-9]{1,5})?")
_BETTER = "better: {}_file, or the environment"
MAX_PORT = 65535


class HookSection(Section):
    """Health hooks, metrics and the status page over HTTP (docs/hook.md)."""

    listen: str = Field(
        "",
        description="ADDRESS:PORT, as 127.0.0.1:8025; `systemd` = the socket that it"
        " hands over; empty = no server; beyond loopback it needs a token",
    )
    names: tuple[str, ...] = Field(
        (), description="host names under which a reverse proxy in front is reached"
    )
    token_file: str = Field(
        "", description="file with the bearer token of hooks and metrics"
    )
    token: SecretStr = Field(SecretStr(""), description=_BETTER.format("token"))
    hmac_file: str = Field("", description="file with the key of signed hooks")
    hmac: SecretStr = Field(SecretStr(""), description=_BETTER.format("hmac"))
    operator_token_file: str = Field(
        "",
        description="file with the token of the status page, which may pause, resume"
        " and throttle; without it nobody may, and only loopback may read",
    )
    operator_token: SecretStr = Field(
        SecretStr(""), description=_BETTER.format("operator_token")
    )
    tls_cert: str = Field("", description="PEM file of the certificate and its chain")
    tls_key: str = Field("", description="PEM file of its key")
    rate: str = Field(
        "120/minute", description="requests of one client, as [throttle] rate"
    )

    @field_validator("listen")
    @classmethod
    def _is_place(cls, value: str) -> str:
        if value in ("", "systemd") or _is_place(value):
            return value
        message = (
            "legal: systemd, or ADDRESS:PORT, as 127.0.0.1:8025, [::1]:8025,"
            " 0.0.0.0:8025"
        )
        raise ValueError(message)

    @field_validator("names")
    @classmethod
    def _are_names(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        lowered = tuple(value.lower() for value in values)
        for value in lowered:
            if not _NAME.fullmatch(value):
                message = f"{value!r} is no host name"
                raise ValueError(message)
        return lowered

    @field_validator("rate")
    @classmethod
    def _is_rate(cls, value: str) -> str:
        if parse_rate(value) is None:
            message = "a rate is needed here, e.g. 120/minute"
            raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _belong_together(self) -> "HookSection":
        if bool(self.tls_cert) != bool(self.tls_key):
            message = "tls_cert and tls_key belong together"
            raise ValueError(message)
        return self


def _is_place(text: str) -> bool:
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > MAX_PORT:
        return False
    try:
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else ""
        version = ipaddress.ip_address(bare or host).version
    except ValueError:
        return host == "localhost"
    return bool(bare) is (version == 6)  # noqa: PLR2004
