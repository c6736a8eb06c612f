"""The HTTP server of `drainer watch`: health hooks, metrics, the status page."""

import ipaddress
import re

from pydantic import Field, SecretStr, field_validator, model_validator

from drainer.config.section import Section
from drainer.policy.pacing.rate import parse_rate

_NAME = re.compile(r"[a-z0-9._-]{1,253}(?::[0-9]{1,5})?")
_BETTER = "The secret itself. Better: {}_file, or the environment."
MAX_PORT = 65535


class HookSection(Section):
    """Health hooks, metrics and the status page over HTTP (docs/hook.md)."""

    listen: str = Field(
        "",
        description="ADDRESS:PORT, such as 127.0.0.1:8025. `systemd` = the socket that"
        " systemd passes; empty = no server. Other than loopback needs a token.",
    )
    names: tuple[str, ...] = Field(
        (), description="Host names by which clients reach a reverse proxy in front."
    )
    token_file: str = Field(
        "", description="File with the bearer token for hooks and metrics."
    )
    token: SecretStr = Field(SecretStr(""), description=_BETTER.format("token"))
    hmac_file: str = Field("", description="File with the key for signed hooks.")
    hmac: SecretStr = Field(SecretStr(""), description=_BETTER.format("hmac"))
    operator_token_file: str = Field(
        "",
        description="File with the token for pause, resume and throttle on the status"
        " page. Without it they are off, and only loopback may read the page.",
    )
    operator_token: SecretStr = Field(
        SecretStr(""), description=_BETTER.format("operator_token")
    )
    tls_cert: str = Field("", description="PEM file: certificate and its chain.")
    tls_key: str = Field("", description="PEM file: private key of tls_cert.")
    rate: str = Field(
        "120/minute",
        description="Most requests of one client, written as [throttle] rate.",
    )

    @field_validator("listen")
    @classmethod
    def _is_place(cls, value: str) -> str:
        if value in ("", "systemd") or _is_place(value):
            return value
        raise ValueError(
            "legal: systemd, or ADDRESS:PORT, such as 127.0.0.1:8025, [::1]:8025,"
            " 0.0.0.0:8025"
        )

    @field_validator("names")
    @classmethod
    def _are_names(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        lowered = tuple(value.lower() for value in values)
        for value in lowered:
            if not _NAME.fullmatch(value):
                raise ValueError(f"{value!r} is not a valid host name")
        return lowered

    @field_validator("rate")
    @classmethod
    def _is_rate(cls, value: str) -> str:
        if parse_rate(value) is None:
            raise ValueError("unlimited is not allowed here; write e.g. 120/minute")
        return value

    @model_validator(mode="after")
    def _belong_together(self) -> "HookSection":
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("set both tls_cert and tls_key, or neither")
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
