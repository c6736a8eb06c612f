"""How fast drainer sends, when it tries again, and when it stops."""

import shlex
from datetime import timedelta

from pydantic import Field, ValidationInfo, field_validator, model_validator

from drainer.config.section import Duration, Section
from drainer.policy.pacing.rate import message_rate, parse_rate


class ThrottleSection(Section):
    """How fast drainer sends mail to the primary."""

    rate: str = Field(
        "10/second",
        description="Most messages per time: N/second, N/minute, N/hour, or unlimited.",
    )
    total: str = Field(
        "unlimited",
        description="Most messages per time of all routes of a drain together, beside"
        " the rate of each.",
    )
    burst: int | None = Field(
        None,
        description="Most messages at once, at most one second's worth. Empty = a tenth"
        " of a second's worth, or 4 if that is more.",
    )
    bytes: str = Field(
        "unlimited",
        description="Most bytes of content per time, e.g. 5MB/second, or unlimited.",
    )
    recipients: str = Field(
        "unlimited",
        description="Most recipients per time, e.g. 100/second, or unlimited.",
    )
    new_connections: str = Field(
        "10/second",
        description="Most new connections per time. At the start, drainer may open as"
        " many as `[primary] connections` at once.",
    )
    adaptive: bool = Field(
        True,  # noqa: FBT003 - a default
        description="Start slowly, and slow down while the primary is overloaded.",
    )
    ramp: Duration = Field(
        timedelta(minutes=2),
        description="Time to grow from one connection to the full rate, if the primary"
        " is healthy. 0s, `--rate` or `--connections` = full rate from the start.",
    )
    load_command: str = Field(
        "",
        description="Command that prints the primary's load as a number. drainer runs"
        " it without a shell every 5 seconds. Empty = none.",
    )
    load_high: float = Field(
        0.8,
        gt=0,
        description="Load from which drainer sends less. The number is in the unit of"
        " the load.",
    )

    @field_validator("load_command")
    @classmethod
    def _is_command(cls, value: str) -> str:
        shlex.split(value)
        return value

    @field_validator("rate", "total", "bytes", "recipients", "new_connections")
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
    """When drainer tries a temporary failure again."""

    first: Duration = Field(
        timedelta(minutes=1), description="Delay before the second attempt."
    )
    factor: float = Field(
        2.0, ge=1, le=10, description="The delay grows by this factor each time."
    )
    max: Duration = Field(timedelta(minutes=30), description="Longest delay.")
    jitter: float = Field(
        0.2,
        ge=0,
        le=0.9,
        description="Random change of each delay: 0.2 = 20 % up or down.",
    )
    long_first: Duration = Field(
        timedelta(hours=1),
        description="First delay for slow problems, such as a full mailbox.",
    )
    long_max: Duration = Field(
        timedelta(hours=6), description="Longest delay for these slow problems."
    )
    unknown: Duration = Field(
        timedelta(minutes=5),
        description="Delay after the reply to the final dot was lost.",
    )
    lifetime: Duration = Field(
        timedelta(days=5),
        description="Sum of delays after which drainer treats the failure as permanent."
        " The time counts only while the primary answers.",
    )
    quota: Duration = Field(
        timedelta(days=3), description="The same as lifetime, for a full mailbox."
    )

    @model_validator(mode="after")
    def _grows(self) -> "RetrySection":
        for first, last in (("first", "max"), ("long_first", "long_max")):
            if getattr(self, first) > getattr(self, last):
                raise ValueError(f"{first} is longer than {last}")
        return self


class BreakerSection(Section):
    """The circuit breaker: it stops delivery when the primary seems to refuse us."""

    pauses: tuple[Duration, ...] = Field(
        tuple(timedelta(minutes=m) for m in (1, 2, 5, 10, 15)),
        min_length=1,
        description="Pauses after a temporary refusal before MAIL, one after another;"
        " the last one repeats.",
    )
    give_up_after: Duration = Field(
        timedelta(minutes=15),
        description="`drain` stops after this long without a success"
        " (--give-up-after).",
    )

    run: int = Field(
        3,
        ge=2,
        description="Suspect that the primary refuses us after N refusals of the same"
        " kind in a row, for different senders and recipients. After N-1 if the reply"
        " says little.",
    )
    contents: int = Field(
        10, ge=2, description="The same N for refusals of the content."
    )
    votes: int = Field(
        20,
        ge=2,
        description="Look at the last N recipients. If more than half were refused,"
        " suspect that the primary refuses us.",
    )
    first_votes: int = Field(
        5,
        ge=2,
        description="Early in a run: suspect it also if the first N recipients were all"
        " refused.",
    )
    brake_least: int = Field(
        10,
        ge=0,
        description="The brake stays off while at most N refusals wait for"
        " confirmation. Half of N are enough if they are half of all recipients.",
    )
    brake_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Brake: a fraction of all recipients handled. While more refusals"
        " than this wait for confirmation, none becomes final.",
    )
