"""The replies of a session, each attributed to its command, or the session ends.

Replies come without a number, so only their order says what they answer. One reply too
many gives every later command the reply of another. The 354 to DATA, and a positive
reply to RSET with none behind it, prove that both sides are in step. When the step is
lost, what was answered since the last proof decides nothing.
"""

import re

from msgspec.structs import replace

from drainer.mail.reply import EXTENSION, SESSION_END, Lost, Reply, Stage
from drainer.mail.reply_codes import CLOSING, GO_AHEAD, INTERMEDIATE, SUCCESS
from drainer.policy.classify.classifier import Answer
from drainer.smtp.connection import Connection
from drainer.smtp.host_trust import PIPELINING, HostTrust
from drainer.smtp.parameters import find_refused_extension
from drainer.smtp.transaction import Transaction

_FAREWELL = 221
_OF_SESSIONS = frozenset((220, _FAREWELL))
"""Codes of a session's start and end: no reply to a command of a transaction."""
NO_PROOF = frozenset((CLOSING, 500, 502))
"""Codes of a refused RSET that do not show whether both sides are in step."""
_QUIT_LIMIT = 10.0
"""Seconds for each reply once QUIT was sent to learn whether any is left."""
_MAX_EXTRAS = 100
"""Replies that are read before the one to QUIT: a peer may never stop."""
_LIMIT = re.compile(
    r"too many|max|limit|exceed|reached|no (?:more|further)|enough", re.IGNORECASE
)
_OF_A_SESSION = re.compile(
    r"\b(?:per|this|one|each|same|single)(?: smtp)? connection\b"
    r"|\bsession\b(?! encryption)|\btransactions\b",
    re.IGNORECASE,
)
_ANOTHER = re.compile(
    r"\bre-?connect\b|\b(?:another|fresh|new)(?: smtp)? (?:session|connection)\b",
    re.IGNORECASE,
)
"""What a reply says that limits a session: a limit of it, or what comes next."""


class ReplyReader:
    """Reads replies in order, and notices when they do not match the commands."""

    def __init__(self, connection: Connection, trust: HostTrust) -> None:
        """Start in step."""
        self._wire = connection.wire
        self._opened = connection.opened
        self._trust = trust
        #: No further reply counts.
        self.broken = False
        #: Whether the peer ever answered a MAIL.
        self.has_replied = False
        #: Where the step was lost, and the reply or reason; None = in step.
        self.misstep: tuple[Stage, Reply | Lost] | None = None
        self._said_quit = False

    @property
    def loss(self) -> Lost:
        """Why no further reply counts."""
        return self._wire.lost or Lost(reason="closed")

    async def answer(
        self, transaction: Transaction, stage: Stage, limit: float
    ) -> Reply | Lost:
        """Return the reply to a command before the content, or why there is none."""
        if self.broken:
            said = Lost(reason="closed", detail="the primary said 421 before")
            return self._wire.lost or said
        reply = await self._wire.reply(limit)
        transaction.note(stage, reply)
        if not isinstance(reply, Reply):
            return reply
        self.has_replied = True
        if reply.code == CLOSING:
            self.broken = True  # RFC 5321 3.8: it closes after this
        if _is_out_of_place(reply, stage):
            self.lose_step(f"{reply} makes no sense at {stage}", stage, reply)
        return reply

    async def skip(self, count: int, limit: float) -> bool:
        """Read replies to commands that made no sense; False when the session ends."""
        for _ in range(count):
            noise = await self._wire.reply(limit)
            if not isinstance(noise, Reply):
                return False
            if noise.code == GO_AHEAD:
                self.give_up(f"{noise} makes no sense without MAIL")
                return False
        return True

    def is_interrupted(self, command: str) -> bool:
        """Return whether a reply came that no command asked for, and act on it."""
        if self.has_extra():
            self.lose_step(f"a reply came before {command} was sent")
        return self.broken

    def has_extra(self) -> bool:
        """Return whether a reply waits; a 421 may come at any time (RFC 5321 3.8)."""
        extra = self._wire.next_reply
        if extra is not None and extra.code == CLOSING:
            self.broken = True
            return False
        return extra is not None

    async def at_dot(
        self, transaction: Transaction, limit: float, *, is_last: bool
    ) -> list[Reply | Lost]:
        """Return the reply to the final dot for each accepted recipient, in order.

        With LMTP each has its own (RFC 2033 4.2), and ``limit`` is for each of them. A
        recipient whose reply is missing gets the loss; the others keep theirs, unless
        the server says that it has sent all. After a 421 it may still answer for the
        rest. ``is_last``: nothing was sent behind the dot.
        """
        answers: list[Reply | Lost] = []
        stray: Reply | None = None
        for _ in transaction.accepted if transaction.own_replies else "1":
            reply = await self._reply_at_dot(limit, is_first=not answers)
            transaction.note(Stage.DOT, reply)
            answers.append(reply)
            if isinstance(reply, Reply):
                self.broken |= reply.code == CLOSING
                if stray is None and _is_out_of_place(reply, Stage.DOT):
                    stray = reply
        if stray is not None:  # what was accepted, remains unknown
            why = f"{stray} makes no sense at dot"
            if self._said_quit and stray.code == _FAREWELL:
                why = "fewer replies to the final dot than recipients"
            self.lose_step(why, Stage.DOT, stray)
            answers = [self.loss] * len(answers)
        elif is_last:
            extras = await self._extras(limit, answers)
            answers = self._check_extras(answers, extras)
        several = transaction.own_replies
        return answers if several else answers * len(transaction.accepted)

    async def _reply_at_dot(self, limit: float, *, is_first: bool) -> Reply | Lost:
        """Return the next reply to a final dot, or why there is none.

        A server that is silent after some of them is slow, or has left one out, so
        that recipients would get the replies of others. Only the latter answers QUIT.
        Behind a 421 (``broken``) the others may be missing for good reason.
        """
        if not is_first and not self.broken and not await self._wire.wait(limit):
            self._say_quit()
        return await self._wire.reply(
            min(limit, _QUIT_LIMIT) if self._said_quit else limit
        )

    def _say_quit(self) -> None:
        """Send QUIT: its reply is like no other, and the last one of the session."""
        self.broken = self._said_quit = True
        self._wire.write(b"QUIT\r\n")

    async def take_early(self, transaction: Transaction) -> None:
        """Take a reply that came before the final dot as the reply to it.

        With LMTP it is that of the first recipient, and so on; the message is sent
        again to those that have none. The session ends.
        """
        those = transaction.accepted
        for group in [[each] for each in those] if transaction.own_replies else [those]:
            reply = await self._wire.reply(0) if self._wire.has_reply else None
            if isinstance(reply, Reply) and reply.category in (4, 5):
                transaction.note(Stage.DOT, reply)
                for claimed in group:
                    transaction.end(claimed, Stage.DOT, reply)
        self.give_up("answered before the final dot")

    def _check_extras(
        self, answers: list[Reply | Lost], extras: list[Reply | Lost]
    ) -> list[Reply | Lost]:
        """Return the replies to a final dot; Lost for all if more came and disagree."""
        if not extras:
            return answers
        words = f"more replies to the final dot than due: {answers[-1]}; {extras[0]}"
        self.lose_step(words)
        agree = len(_categories([*answers, *extras])) == 1
        return answers if agree else [self.loss] * len(answers)

    async def _extras(
        self, limit: float, answers: list[Reply | Lost]
    ) -> list[Reply | Lost]:
        """Return the replies that wait although none is due.

        With several recipients they may be on their way, and then one would have a
        reply that is for another. The reply to RSET shows it if all replies agree; if
        not, only a reply that cannot be taken for one of them does: that to QUIT.
        """
        found: list[Reply | Lost] = []
        if len(answers) > 1 and not self.broken and not self.has_extra():
            if len(_categories(answers)) > 1:
                self._say_quit()
            else:
                found = await self._after_reset(limit)
        if self._said_quit:
            return await self._before_farewell(limit)
        while self.has_extra():
            found.append(await self._wire.reply(0))
        return found

    async def _after_reset(self, limit: float) -> list[Reply | Lost]:
        """Send RSET; return its reply if that shows that there was one too many."""
        reply = await self._wire.ask("RSET", limit)
        if isinstance(reply, Lost):
            return []
        if reply.code in NO_PROOF:
            self.give_up("RSET was refused")
            return []
        if reply.category == SUCCESS and not self.has_extra():
            return []
        return [reply]

    async def _before_farewell(self, limit: float) -> list[Reply | Lost]:
        """Return the replies that came before the one to QUIT."""
        found: list[Reply | Lost] = []
        for _ in range(_MAX_EXTRAS):
            reply = await self._wire.reply(min(limit, _QUIT_LIMIT))
            if isinstance(reply, Lost):
                return found[:-1]  # the last one is its reply to QUIT
            if reply.code == _FAREWELL:
                return found
            found.append(reply)
        return found

    def lose_step(
        self, why: str, stage: Stage = Stage.DATA, answer: Reply | None = None
    ) -> None:
        """End a session whose replies do not match its commands."""
        self.misstep = stage, answer or Lost(reason="protocol", detail=why)
        self.give_up(why)

    def give_up(self, why: str) -> None:
        """End the session at once: nothing that comes now can be relied on."""
        self.broken = True
        self._wire.abort(Lost(reason="protocol", detail=why))

    def take_back(
        self, transaction: Transaction, *, before: int, pipelined: bool
    ) -> None:
        """Replace what says nothing about the recipients of an envelope.

        The host may not be able to do what it announces, or may end each session after
        some messages: ``before`` is how many it had, 0 if none was delivered. Then the
        same message is sent again, at once; in the latter case alone, so that a message
        which is itself the cause is known.
        """
        ends = transaction.answers(_ends_session)
        if ends and not before and transaction.delivery.alone:
            self._trust.judge_alone(ended=True)
        if self.misstep is not None:
            stage, answer = self.misstep
            if stage is Stage.DOT:  # of the message before
                stage, answer = Stage.MAIL, self.loss
            if pipelined:
                self._trust.distrust(PIPELINING, self.loss.detail)
                answer = Lost(reason=EXTENSION, detail=self.loss.detail)
            transaction.void(stage, answer)
        elif before and ends:
            if not transaction.spoilt:  # else the message before it is the cause
                self._trust.end_session(before, self._opened, str(ends[0]))
            self.broken = True
            lost = Lost(reason=SESSION_END, detail=str(ends[0]))
            transaction.replace(_ends_session, lost)
        elif pipelined and self._wire.lost is not None and not self.broken:
            loss, is_late = self.loss, self.loss.reason == "timeout"
            if is_late if transaction.behind_dot else not self._trust.pipelines:
                why = f"commands sent together got no answer: {loss}"
                self._trust.distrust(PIPELINING, why)
                loss = Lost(reason=EXTENSION, detail=why)
            # The missing reply may be any: then each one behind it is of another.
            transaction.replace(_is_any if is_late else _is_lost, loss)

    def forgive_parameters(self, transaction: Transaction) -> bool:
        """Send again, without the extension, what was refused for the use of it.

        Returns whether there is any such recipient.
        """
        found = False
        for n, result in transaction.results.items():
            if extension := find_refused_extension(transaction, result):
                why = f"it announces {extension.upper()}, and said: {result.answer}"
                self._trust.distrust(extension, why)
                lost = Lost(reason=EXTENSION, detail=why)
                transaction.results[n] = replace(result, answer=lost)
                found = True
        return found


def _categories(answers: list[Reply | Lost]) -> set[int]:
    """Return the first digits of the replies; 0 for one that is missing."""
    return {each.category if isinstance(each, Reply) else 0 for each in answers}


def _is_lost(answer: Answer) -> bool:
    return isinstance(answer, Lost)


def _is_any(_: Answer) -> bool:
    return True


def _ends_session(answer: Answer) -> bool:
    """Return whether the primary ended the session instead of taking a message."""
    if isinstance(answer, Lost):
        return answer.reason in ("closed", "reset")
    if not isinstance(answer, Reply) or answer.category not in (4, 5):
        return False
    text = answer.text
    is_limit = bool(_LIMIT.search(text) and _OF_A_SESSION.search(text))
    return answer.code == CLOSING or is_limit or bool(_ANOTHER.search(text))


def _is_out_of_place(reply: Reply, stage: Stage) -> bool:
    """Return whether a positive reply is of the wrong kind: we have lost step.

    At the final dot, a banner, a farewell or lines that disagree accept no message.
    """
    category = reply.category
    due = reply.code == GO_AHEAD if stage is Stage.DATA else category == SUCCESS
    if stage is Stage.DOT and (reply.mixed or reply.code in _OF_SESSIONS):
        due = False
    return category in (SUCCESS, INTERMEDIATE) and not due
