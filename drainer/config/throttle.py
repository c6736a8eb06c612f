"""How fast mail goes, when it is tried again, and when it stops."""

import shlex
from datetime import timedelta

from pydantic import Field, ValidationInfo, field_validator, model_validator

from drainer.config.section import Duration, Section
from drainer.policy.pacing.rate import message_rate, parse_rate


class ThrottleSection(Section):
    """How fast mail may go to the primary."""

    rate: str = Field(
        "10/second", description="messages: /second, /minute, /hour, or unlimited"
    )
    burst: int | None = Field(
        None, description="messages at once; at most one second's worth"
    )
    bytes: str = Field("unlimited", description="content octets, e.g. 5MB/second")
    recipients: str = Field("unlimited", description="recipients, e.g. 100/second")
    new_connections: str = Field(
        "10/second",
        description="connections that are opened anew; as many as `[primary]"
        " connections` may be opened at once",
    )
    adaptive: bool = Field(
        True,  # noqa: FBT003 - a default
        description="begin slowly, and go slower while the primary suffers",
    )
    ramp: Duration = Field(
        timedelta(minutes=2),
        description="from one connection to everything, if the primary is well; 0s,"
        " `--rate` and `--connections` begin with everything",
    )
    load_command: str = Field(
        "",
        description="prints the primary's own load, a number; run without a shell every"
        " 5 seconds",
    )
    load_high: float = Field(
        0.8,
        gt=0,
        description="from this load on less is sent, to leave room for others",
    )

    @field_validator("load_command")
    @classmethod
    def _is_command(cls, value: str) -> str:
        shlex.split(value)
        return value

    @field_validator("rate", "bytes", "recipients", "new_connections")
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


class BreakerSection(Section):
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
