"""[scan.NAME]: scanners that look at a message before it is sent."""

import re
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from drainer.config.host import is_socket, split_server
from drainer.config.section import Duration, Section
from drainer.errors import UsageError
from drainer.policy.pacing.rate import parse_size
from drainer.smtp.route import format_host

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,29}")
_PORTS = {"rspamd": 11333, "spamd": 783, "clamd": 3310}
_CLAMD = "unix:/run/clamav/clamd.ctl"
_PROFILE = re.compile(r"[!-~]{0,100}")


class ScannerSection(Section):
    """A scanner that looks at each message before drainer sends it; a hit is held."""

    protocol: Literal["rspamd", "spamd", "clamd", "command"] = Field(
        description="rspamd (/checkv2), SpamAssassin (spamd), ClamAV (clamd), or a"
        " program."
    )
    address: str = Field(
        "",
        description="HOST[:PORT] or unix:/PATH. Empty = where Debian's package of it"
        " listens.",
    )
    command: tuple[str, ...] = Field(
        (),
        description="Program and arguments, run without a shell: the message on"
        " standard input, the envelope in the environment. Exit status 0 = clean, 1 ="
        " a hit (the first line of its output says what), others = it failed.",
    )
    profile: str = Field(
        "",
        description="Whose rules apply: a user of spamd, an id of rspamd's settings.",
    )
    hold: tuple[str, ...] | None = Field(
        None,
        description="Verdicts that hold a message, with * and ?: actions of rspamd,"
        ' "spam" of spamd, signatures of clamd, words of a program. Default:'
        ' ["reject"] of rspamd, else ["*"]; with a score nothing of spamd.',
    )
    score: float | None = Field(
        None, description="A score from which on a message is held as well."
    )
    timeout: Duration = Field(
        timedelta(seconds=30), description="Limit for one message."
    )
    concurrency: int = Field(
        4, ge=1, le=1000, description="Messages that it gets at the same time."
    )
    max_size: str = Field(
        "",
        description="Larger messages are sent without this scanner. Empty = 500KB of"
        " spamd, as spamc has it, else 25MB.",
    )
    unreachable: Literal["defer", "send"] = Field(
        "defer",
        description="What becomes of a message while the scanner gives no answer.",
    )
    cache: Duration = Field(
        timedelta(days=1),
        description="How long an answer counts for the same content; a hit counts for"
        " 10 minutes at most.",
    )

    primary_filters: bool = Field(
        default=False,
        description="The primary filters mail by itself: do not scan a message whose"
        " original client drainer names to it by XCLIENT.",
    )

    @property
    def place(self) -> str:
        """The address with its port; '' of a program."""
        if self.protocol == "command":
            return ""
        usual = _CLAMD if self.protocol == "clamd" else "127.0.0.1"
        host, port = split_server(self.address or usual)
        if is_socket(host):
            return host
        return format_host(host, port or _PORTS[self.protocol])

    @property
    def max_bytes(self) -> int:
        """max_size in bytes."""
        usual = "500KB" if self.protocol == "spamd" else "25MB"
        return parse_size(self.max_size or usual)

    @property
    def holds(self) -> tuple[str, ...]:
        """The verdicts that hold a message."""
        if self.hold is not None:
            return self.hold
        if self.protocol == "rspamd":
            return ("reject",)
        is_by_score = self.protocol == "spamd" and self.score is not None
        return () if is_by_score else ("*",)

    @field_validator("max_size")
    @classmethod
    def _is_size(cls, value: str) -> str:
        if value:
            parse_size(value)
        return value

    @field_validator("address")
    @classmethod
    def _is_address(cls, value: str) -> str:
        try:
            if value:
                split_server(value)
        except UsageError as error:
            raise ValueError(str(error)) from None
        return value

    @field_validator("profile")
    @classmethod
    def _is_word(cls, value: str) -> str:
        if not _PROFILE.fullmatch(value):
            raise ValueError("profile is one word of printable ASCII characters")
        return value

    @model_validator(mode="after")
    def _fits(self) -> "ScannerSection":
        is_program = self.protocol == "command"
        if is_program != bool(self.command):
            message = 'command goes with protocol = "command", and only with that'
            raise ValueError(message)
        if is_program and self.address:
            raise ValueError("a program has no address")
        return self


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name[:40]!r} is not a name: use up to 30 of a-z, 0-9 and -")
    return name


ScannerName = Annotated[str, AfterValidator(_check_name)]
"""The NAME of a section: the rule of its hits is scan-NAME."""
