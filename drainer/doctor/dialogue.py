"""A few questions in one session with a mail server, each with its answer."""

import re
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime

from msgspec.structs import replace

from drainer.doctor.checks.facts import DialogueAnswer
from drainer.mail.reply import Stage
from drainer.smtp.connection import ConnectFailure, Connection, ConnectStep, connect
from drainer.smtp.post import PostResult
from drainer.smtp.route import Route, Timeouts

LIMITS = Timeouts(connect=5.0, banner=10.0, ehlo=8.0, command=8.0, data=8.0, quit=2.0)
"""Long enough for a delayed banner, short enough for a dead host."""
LOOK_SECONDS = 16.0
"""Time limit for all questions to one host."""

_DATE = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), {1,2}\d{1,2} [A-Z][a-z]{2} \d{4}"
    r" \d\d:\d\d:\d\d [+-]\d{4}"
)


def answer_of(step: ConnectStep | PostResult) -> DialogueAnswer:
    """Return how one step of a session ended."""
    return DialogueAnswer(stage=step.stage, answer=step.answer)


@dataclass(slots=True)
class Dialogue:
    """One session; every behaviour of the peer becomes an answer."""

    connection: Connection
    limits: Timeouts

    async def say(self, stage: Stage, command: str) -> DialogueAnswer:
        """Send a command and return the reply."""
        answer = await self.connection.wire.ask(command, self.limits.command)
        return DialogueAnswer(stage=stage, answer=answer)

    async def ask(self, sender: str, recipient: str) -> DialogueAnswer:
        """Return the reply to MAIL, or else RCPT, in a separate transaction."""
        said = await self.say(Stage.MAIL, f"MAIL FROM:<{sender}>")
        if said.is_accepted:
            said = await self.say(Stage.RCPT, f"RCPT TO:<{recipient}>")
            await self.say(Stage.RSET, "RSET")
        return said

    async def leave(self) -> None:
        """Send QUIT and close."""
        await self.connection.wire.ask("QUIT", self.limits.quit)
        self.connection.wire.close()


async def open_talk(
    route: Route, *, tls: str, verify: bool = False
) -> tuple[Dialogue | None, DialogueAnswer]:
    """Open a session; return it, or None, and the result of opening."""
    answer = await connect(replace(route, tls=tls, verify=verify))
    steps = list(map(answer_of, answer.steps))
    if isinstance(answer, ConnectFailure):
        return None, steps[-1]
    greeted = [said for said in steps if said.stage is Stage.EHLO]
    return Dialogue(answer, route.timeouts), greeted[-1]


def seconds_ahead(banner: str, now: datetime) -> float | None:
    """Return how far a clock is ahead of the date in a banner; None without a date."""
    match = _DATE.search(banner[:500])
    try:
        return (
            (now - parsedate_to_datetime(match[0])).total_seconds() if match else None
        )
    except (ValueError, OverflowError):
        return None
