"""[notify]: whom drainer notifies when a person is needed, and how."""

from datetime import timedelta
from typing import Literal, get_args

from pydantic import Field, model_validator

from drainer.config.section import Duration, Section, Size
from drainer.mail.envelope import parse_mailbox

EventName = Literal[
    "stopped", "resumed", "done", "stalled", "expires", "defect", "disk", "ended"
]
EVENTS: tuple[EventName, ...] = get_args(EventName)


class NotifySection(Section):
    """Notifications: sent when a person is needed, or when something is over."""

    command: tuple[str, ...] = Field(
        (),
        description="Program and arguments that get each notification as JSON on"
        " standard input.",
    )
    mail: str = Field("", description="Address that gets each notification by mail.")
    via: str = Field(
        "",
        description="HOST[:PORT] that takes that mail, best not the primary. Empty ="
        " [bounce] via.",
    )
    urls_file: str = Field(
        "",
        description="File with URLs of services, one a line, for Apprise (the extra"
        " `notify`).",
    )
    events: tuple[EventName, ...] = Field(
        EVENTS,
        description="What is reported: stopped, resumed, done, stalled, expires,"
        " defect, disk, ended.",
    )
    stalled_after: Duration = Field(
        timedelta(minutes=15),
        description="stalled: a drain runs, mail remains, and nothing is delivered for"
        " this long.",
    )
    expires_within: Duration = Field(
        timedelta(days=1), description="expires: mail has less than this lifetime left."
    )
    disk_free: Size = Field(
        "500MB", description="disk: the ledger's disk has less than this free."
    )
    interval: Duration = Field(
        timedelta(minutes=10),
        description="Shortest time between two notifications of one kind.",
    )

    @property
    def is_on(self) -> bool:
        """Whether drainer notifies at all."""
        return bool(self.command or self.mail or self.urls_file)

    @model_validator(mode="after")
    def _is_mailbox(self) -> "NotifySection":
        if self.mail:
            parse_mailbox(self.mail)
        elif self.via:
            raise ValueError("via needs mail: the address that gets the notifications")
        return self
