"""What `drainer watch` does on its own, and when."""

from datetime import timedelta

from pydantic import Field, field_validator, model_validator

from drainer.config.section import Duration, Section
from drainer.mail.envelope import parse_mailbox
from drainer.policy.watch.windows import parse_hours, parse_time


class WatchSection(Section):
    """What `drainer watch` does on its own, and when."""

    windows: tuple[str, ...] = Field(
        (),
        description="Local hours in which it may drain, such as `22:00-06:00` or"
        " `sat,sun 00:00-24:00`. Empty = always.",
    )
    rescan: Duration = Field(
        timedelta(seconds=30), description="Time between two scans for new mail."
    )
    remember: Duration = Field(
        timedelta(hours=1),
        description="A watch that starts still obeys a `drainer hook` that was sent"
        " within this time.",
    )
    grace: Duration = Field(
        timedelta(seconds=30),
        description="After SIGTERM: how long sessions may take to finish their"
        " message.",
    )
    ledger_patience: Duration = Field(
        timedelta(minutes=10),
        description="How long the ledger may be unavailable before the watch ends with"
        " exit status 1.",
    )
    digest: str = Field(
        "", description="Local time of the daily digest, e.g. 07:00. Empty = none."
    )
    postmaster: str = Field(
        "", description="Address that gets the digest, through [bounce] via."
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
            raise ValueError("rescan must be more than 0s")
        return value

    @model_validator(mode="after")
    def _is_mailed(self) -> "WatchSection":
        if self.digest:
            parse_time(self.digest)
        if bool(self.digest) != bool(self.postmaster):
            raise ValueError("set both digest and postmaster, or neither")
        if self.postmaster:
            parse_mailbox(self.postmaster)
        return self
