"""How drainer checks the health of the primary."""

from datetime import timedelta
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from drainer.config.section import Duration, Section
from drainer.mail.envelope import parse_mailbox


class HealthSection(Section):
    """How `drainer check` and `drainer watch` check the primary."""

    accept: tuple[str, ...] = Field(
        (), description="Known-good recipients: the primary must accept them."
    )
    reject: Literal["random", ""] = Field(
        "random",
        description='"random" = the primary must refuse a random address; "" = skip'
        " this test.",
    )
    sender: str = Field(
        "", description="Reverse-path of the check. Empty = the null sender <>."
    )
    successes: int = Field(
        3,
        ge=1,
        le=100,
        description="Successful checks in a row before `watch` starts a drain.",
    )
    over: Duration = Field(
        timedelta(minutes=1),
        description="Least time between the first and the last of these checks.",
    )
    interval: Duration = Field(
        timedelta(seconds=30),
        description="Time between two checks of `watch`. It doubles while they fail.",
    )
    longest: Duration = Field(
        timedelta(minutes=10), description="Longest time between two checks."
    )
    forget: Duration = Field(
        timedelta(hours=1),
        description="Each failure of a healthy primary doubles `successes` and `over`,"
        " up to 16-fold. After it was healthy for this long, drainer forgets them.",
    )

    @model_validator(mode="after")
    def _pauses(self) -> "HealthSection":
        if not timedelta(0) < self.interval <= self.longest:
            raise ValueError("interval must be more than 0s and at most longest")
        return self

    @field_validator("accept", "sender")
    @classmethod
    def _addresses(cls, value: Any) -> Any:  # noqa: ANN401
        for address in (value,) if isinstance(value, str) else value:
            if address:
                parse_mailbox(address)
        return value
