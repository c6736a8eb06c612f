"""What `drainer watch` does by itself, and when."""

from datetime import timedelta

from pydantic import Field, field_validator, model_validator

from drainer.config.section import Duration, Section
from drainer.mail.envelope import AddressError, parse_mailbox
from drainer.policy.watch.windows import parse_hours, parse_time


class WatchSection(Section):
    """What `drainer watch` does by itself, and when."""

    windows: tuple[str, ...] = Field(
        (),
        description="hours of local time in which it may drain: `22:00-06:00`,"
        " `sat,sun 00:00-24:00`; empty = always",
    )
    rescan: Duration = Field(
        timedelta(seconds=30), description="how often it looks for new mail"
    )
    remember: Duration = Field(
        timedelta(hours=1),
        description="age up to which `drainer hook` counts that came while none ran",
    )
    grace: Duration = Field(
        timedelta(seconds=30),
        description="after SIGTERM: for sessions to finish their message",
    )
    ledger_patience: Duration = Field(
        timedelta(minutes=10),
        description="how long the ledger may be away before the watch ends with exit"
        " status 1",
    )
    digest: str = Field(
        "", description="local time of the daily digest, e.g. 07:00; empty = none"
    )
    postmaster: str = Field(
        "", description="who gets the digest, by [bounce] via; needed for it"
    )

    @field_validator("windows")
    @classmethod
    def _are_windows(cls, texts: tuple[str, ...]) -> tuple[str, ...]:
        parse_hours(texts)
        return texts

    @field_validator("rescan")
    @classmethod
    def _takes_time(cls, value: timedelta) -> timedelta:
        if value <= timedelta(0):
            message = "it would look for new mail all the time"
            raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _is_mailed(self) -> "WatchSection":
        if self.digest:
            parse_time(self.digest)
        if bool(self.digest) != bool(self.postmaster):
            message = "digest and postmaster belong together"
            raise ValueError(message)
        if self.postmaster:
            try:
                parse_mailbox(self.postmaster)
            except AddressError as error:
                raise ValueError(str(error)) from None
        return self
