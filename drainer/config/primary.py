"""The primary: the server that drainer delivers to."""

import base64
import ipaddress
import re
import shlex
from datetime import timedelta
from typing import Any, Final, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from drainer.config.host import split_server
from drainer.config.lmtp import settle_lmtp
from drainer.config.section import DomainNames, Duration, Section, Size, settle_tls
from drainer.errors import UsageError

BY_MX: Final = "mx"
"""As ``hosts``: the servers are those of the MX records."""

DANE: Final = "dane"
"""As ``tls``: DNS names the certificate."""
IMPLICIT_PORT = 465
_DIGEST_BYTES = 32


class PrimarySection(Section):
    """The server that drainer delivers to."""

    host: str = Field(
        "",
        description="Host name or address, without port, or unix:/PATH for LMTP."
        " `--to` overrides it.",
    )
    hosts: Literal["mx"] | tuple[str | tuple[str, ...], ...] = Field(
        (),
        description="Several hosts, each HOST[:PORT], instead of `host`. drainer tries"
        ' them in this order. Hosts in an inner list share the load. "mx" = the MX'
        " records of each domain, up to those that name this backup.",
    )
    backup_names: tuple[str, ...] = Field(
        (),
        description="Names of this backup in MX records, beside `helo`. drainer"
        " delivers only to servers that are preferred to them.",
    )
    port: int = Field(
        25,
        ge=1,
        le=65535,
        description="TCP port. The default is 465 for implicit TLS, and 24 for LMTP.",
    )
    protocol: Literal["smtp", "lmtp"] = Field(
        "smtp",
        description="LMTP delivers straight to the mailboxes, past the filters of the"
        " primary's SMTP server. It is the default for a Unix socket.",
    )
    domains: DomainNames = Field(
        (),
        description="Recipient domains to deliver (`.example.org` = its subdomains)."
        " drainer holds recipients of other domains. Empty = deliver all domains.",
    )
    tls: Literal["off", "opportunistic", "required", "implicit", "dane"] = Field(
        "opportunistic",
        description="STARTTLS. `opportunistic` sends unencrypted where TLS fails,"
        " unless DNSSEC proves TLSA records. `verify`, `tls_ca`, `tls_pin` or username"
        " makes it required. `implicit` = TLS from the start, as on port 465, where it"
        " is the default. `dane` = required, with a certificate that TLSA records name;"
        " `[bounce] dns_servers` must validate.",
    )
    tls_minimum: Literal["1.0", "1.1", "1.2", "1.3"] = Field(
        "1.2",
        description="Lowest version of TLS. 1.0 and 1.1 also allow short keys and old"
        " ciphers, for a primary that has nothing better.",
    )
    verify: bool = Field(
        default=False,
        description="Require a valid certificate that names `host` in a"
        " subjectAltName. A username, or `tls_ca`, makes it true.",
    )
    tls_ca: str = Field(
        "",
        description="File of CA certificates (PEM) to trust. Empty = those of this"
        " host.",
    )
    tls_pin: tuple[str, ...] = Field(
        (),
        description="SHA-256 of the server's public key (SubjectPublicKeyInfo), in hex"
        " or base64; several for a change of keys. drainer then asks no CA.",
    )
    tls_cert: str = Field(
        "", description="File of our client certificate (PEM). Empty = none."
    )
    tls_key: str = Field(
        "", description="File of its key (PEM). Empty = it is in tls_cert."
    )
    tls_key_password_file: str = Field(
        "", description="File whose first line is the password of the key."
    )
    bind: str = Field(
        "", description="Own address for the connections. Empty = any of this host."
    )
    proxy_protocol: Literal["off", "v1", "v2"] = Field(
        "off",
        description="Send a PROXY header with our own address first, to a primary that"
        " wants one, because a proxy is in front of it.",
    )
    username: str = Field("", description="User name for AUTH. Empty = no login.")
    password_file: str = Field("", description="File whose first line is the password.")
    password: SecretStr = Field(
        SecretStr(""),
        description="Password for AUTH. Better: password_file, or the environment.",
    )
    token_command: str = Field(
        "",
        description="Command that prints an OAuth 2.0 access token for `username`"
        " (OAUTHBEARER, XOAUTH2), instead of a password. drainer runs it without a"
        " shell at each login.",
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
    ignore_extensions: tuple[str, ...] = Field(
        (),
        description="EHLO keywords that drainer does not use although the primary"
        ' announces them, such as ["PIPELINING", "DSN"]: for a primary, or a device in'
        " between, that cannot do what it announces.",
    )
    allow_own_name: bool = Field(
        default=False,
        description="Send to a primary that has our own name. drainer normally takes"
        " it for a mail loop.",
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
        timedelta(minutes=5),
        description="Time limit for MAIL and for RCPT; QUIT has it as well, but at "
        "most 10 seconds.",
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

    @model_validator(mode="before")
    @classmethod
    def _usual_port(cls, keys: Any) -> Any:  # noqa: ANN401 - pydantic's
        """Take a port of None for one that is not given: `--to` without a port."""
        if isinstance(keys, dict) and keys.get("port", 0) is None:
            return {key: value for key, value in keys.items() if key != "port"}
        return keys

    @field_validator("host")
    @classmethod
    def _is_host(cls, host: str) -> str:
        if not host:
            return host
        name, port = _check_server(host)
        if port is not None:
            raise ValueError(
                f"the port has a key of its own: set host = {name!r}, port = {port}"
            )
        return name

    @field_validator("helo")
    @classmethod
    def _is_name(cls, helo: str) -> str:
        if helo and not re.fullmatch(
            r"[A-Za-z0-9_.:-]{1,253}|\[[A-Za-z0-9.:]+\]", helo
        ):
            raise ValueError("legal: a host name, or an address in brackets")
        return helo

    @property
    def is_named(self) -> bool:
        """Whether any host is named."""
        return bool(self.host or self.hosts)

    @model_validator(mode="after")
    def _one_way(self) -> "PrimarySection":
        if self.host and self.hosts:
            raise ValueError("set host or hosts, not both")
        return self

    @field_validator("hosts")
    @classmethod
    def _are_hosts(
        cls, hosts: Literal["mx"] | tuple[str | tuple[str, ...], ...]
    ) -> Literal["mx"] | tuple[str | tuple[str, ...], ...]:
        if isinstance(hosts, str):
            return hosts
        for each in hosts:
            for host in (each,) if isinstance(each, str) else each:
                _check_server(host)
            if not each:
                raise ValueError("a list of equal hosts is empty")
        return hosts

    @field_validator("ignore_extensions")
    @classmethod
    def _are_keywords(cls, keywords: tuple[str, ...]) -> tuple[str, ...]:
        for keyword in keywords:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}", keyword):
                message = f"{keyword[:60]!r} is not an EHLO keyword, such as PIPELINING"
                raise ValueError(message)
        return tuple(keyword.upper() for keyword in keywords)

    @model_validator(mode="after")
    def _needed(self) -> "PrimarySection":
        """Refuse to ignore what another key requires."""
        is_tls = self.tls in ("required", DANE) or self.verify or bool(self.username)
        needs = {"STARTTLS": is_tls, "AUTH": bool(self.username)}
        for keyword, is_needed in needs.items():
            if is_needed and keyword in self.ignore_extensions:
                raise ValueError(
                    f"ignore_extensions names {keyword}, which tls, verify or username"
                    " requires; remove one of them"
                )
        return self

    @field_validator("tls_pin")
    @classmethod
    def _are_digests(cls, pins: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_digest, pins))

    @field_validator("bind")
    @classmethod
    def _is_address(cls, bind: str) -> str:
        return str(ipaddress.ip_address(bind)) if bind else bind

    @field_validator("token_command")
    @classmethod
    def _is_command(cls, value: str) -> str:
        shlex.split(value)
        return value

    @model_validator(mode="after")
    def _implicit(self) -> "PrimarySection":
        """Let port 465 mean implicit TLS, and the other way round (RFC 8314 7.3)."""
        given = self.model_fields_set
        if self.tls == "implicit" and "port" not in given:
            self.__dict__["port"] = IMPLICIT_PORT  # frozen for others
        if IMPLICIT_PORT in self._ports and "tls" not in given:
            if len(self._ports) > 1:
                message = "port 465 has TLS from the start, others do not: set tls"
                raise ValueError(message)
            self.__dict__["tls"] = "implicit"
        if self.tls_pin and self.tls in ("off", "opportunistic"):
            if "tls" in given:
                message = f'tls_pin and tls = "{self.tls}" contradict each other'
                raise ValueError(message)
            self.__dict__["tls"] = "required"
        return self

    keep: Duration = Field(
        timedelta(0),
        description="How long drainer keeps a copy of delivered mail that its source"
        " drops, for a replay. 0s = no copies.",
    )
    keep_size: Size = Field(
        "1GB", description="The most that these copies may take; the oldest go first."
    )

    @property
    def named_hosts(self) -> tuple[str, ...]:
        """Every host, as it is written, in order of preference."""
        if not isinstance(self.hosts, tuple) or not self.hosts:
            return (self.host,) if self.host else ()
        tiers = ((each,) if isinstance(each, str) else each for each in self.hosts)
        return tuple(host for tier in tiers for host in tier)

    @property
    def _ports(self) -> frozenset[int]:
        """The ports of all servers."""
        found = (split_server(text)[1] for text in self.named_hosts)
        return frozenset(port or self.port for port in found) or frozenset((self.port,))

    @property
    def servers(self) -> frozenset[str]:
        """Every server as HOST:PORT, host names in lower case."""
        found = (split_server(text) for text in self.named_hosts)
        return frozenset(
            f"{host if '/' in host else host.lower()}:{port or self.port}"
            for host, port in found
        )

    @model_validator(mode="after")
    def _lmtp(self) -> "PrimarySection":
        settle_lmtp(self)
        return self

    @model_validator(mode="after")
    def _secrets(self) -> "PrimarySection":
        given, is_tls = self.model_fields_set, self.tls in ("required", "implicit")
        if self.tls_ca and "verify" not in given and (is_tls or "tls" not in given):
            self.__dict__["verify"] = True  # frozen for others
        settle_tls(self, "primary")
        if self.token_command and not self.username:
            raise ValueError("token_command needs username")
        if self.username and self.hosts == BY_MX and self.tls != DANE:
            message = 'username needs named hosts, or DNSSEC: set hosts or tls = "dane"'
            raise ValueError(message)
        if self.username and self.forward_client == "xclient":
            raise ValueError(
                'forward_client = "xclient" resets the login that username needs;'
                ' use "xforward", or remove username'
            )
        return self


def _check_server(text: str) -> tuple[str, int | None]:
    """Return its host and port; ValueError, which names the key, if it is none."""
    try:
        return split_server(text)
    except UsageError as error:
        raise ValueError(f"{error}; {error.hint}") from None


def _digest(text: str) -> str:
    """Return a SHA-256 in hex; ValueError for anything else."""
    plain = text.removeprefix("sha256//").removeprefix("sha256:").replace(":", "")
    if re.fullmatch(r"[0-9A-Fa-f]{64}", plain):
        return plain.lower()
    try:
        found = base64.b64decode(plain, validate=True)
    except ValueError:
        found = b""
    if len(found) != _DIGEST_BYTES:
        raise ValueError(f"{text[:80]!r} is not a SHA-256 digest in hex or base64")
    return found.hex()
