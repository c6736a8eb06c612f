"""What a scanner's answer means, and when a scanner that fails is asked again. Pure."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from fnmatch import fnmatchcase

from msgspec import Struct

from drainer.mail.message import UNSCANNED, ScanProblem

PREFIX = "scan-"
"""How the rules of hits start; the scanner's name follows."""
MAX_SYMBOLS, MAX_WORD = 50, 200
"""Symbols of an answer that are kept, and characters of each text in it."""
FAILURES = 3
"""Messages in a row at which a scanner must fail before it gets a pause."""
HIT_AGE = timedelta(minutes=10)
"""How long a hit is remembered at most: its cause may have been a false positive."""


class ScanAnswer(Struct, frozen=True, kw_only=True):
    """What a scanner says of a content."""

    #: An action, the name of a virus, or an objection; '' = nothing.
    verdict: str = ""
    score: float | None = None
    #: The most important first.
    symbols: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return it in words: the verdict, the score, the symbols."""
        score = "" if self.score is None else f"score {self.score:g}"
        words = ", ".join(filter(None, (self.verdict, score))) or "clean"
        return f"{words}: {', '.join(self.symbols)}" if self.symbols else words


class HoldRule(Struct, frozen=True, kw_only=True):
    """Which answers hold a message."""

    #: Patterns of verdicts, with * and ?; case does not matter.
    hold: tuple[str, ...] = ("*",)
    #: A score from which on it is held as well; None = no score.
    score: float | None = None

    def is_hit(self, answer: ScanAnswer) -> bool:
        """Return whether an answer holds the message."""
        verdict = answer.verdict.lower()
        if verdict and any(fnmatchcase(verdict, each.lower()) for each in self.hold):
            return True
        known = answer.score is not None and self.score is not None
        return known and answer.score >= self.score  # type: ignore[operator]


def hit_by(scanner: str, answer: ScanAnswer) -> ScanProblem:
    """Return the problem that holds a message because of a scanner's answer."""
    facts: dict[str, object] = {
        "scanner": scanner,
        "found": answer.verdict,
        "score": answer.score,
        "symbols": answer.symbols,
    }
    return ScanProblem(
        code=f"{PREFIX}{scanner}",
        detail=f"{scanner}: {answer}",
        evidence=tuple(each for each in facts.items() if each[1] not in (None, "", ())),
    )


def put_off(scanner: str, reason: str, wait: timedelta) -> ScanProblem:
    """Return the problem that puts a message off until a scanner answers."""
    return ScanProblem(
        code=UNSCANNED,
        detail=f"{scanner}: {reason}",
        evidence=(("scanner", scanner),),
        wait=wait,
    )


def is_known(at: datetime, now: datetime, *, age: timedelta, hit: bool) -> bool:
    """Return whether an answer of that time still counts for the same content."""
    return now - at < (min(age, HIT_AGE) if hit else age)


class ScannerPause:
    """Keeps a scanner that fails from being asked for every message.

    After failures at FAILURES messages in a row it is asked nothing for a pause, then
    for one message. If it fails again, the next pause follows.
    """

    def __init__(self, pauses: tuple[timedelta, ...]) -> None:
        """Start with a scanner that works; the last one of the pauses repeats."""
        self._pauses = pauses
        self._failed: set[str] = set()
        self._left: Iterator[timedelta] = iter(())
        self._until: datetime | None = None

    def may_ask(self, now: datetime) -> bool:
        """Return whether it may be asked now; after a pause only the caller may."""
        if self._until is None:
            return True
        if now < self._until:
            return False
        self._start(now)
        return True

    def wait(self, now: datetime) -> timedelta:
        """Return how long the pause still lasts."""
        return max(self._until - now, timedelta(0)) if self._until else timedelta(0)

    def record_answer(self) -> bool:
        """Note that it answered; return whether a pause ends with that."""
        ended = self._until is not None
        self._failed.clear()
        self._until = None
        return ended

    def record_failure(self, message: str, now: datetime) -> bool:
        """Note that it failed at a message; return whether a pause starts with that."""
        self._failed.add(message)
        if self._until is not None or len(self._failed) < FAILURES:
            return False
        self._left = iter(self._pauses)
        self._start(now)
        return True

    def _start(self, now: datetime) -> None:
        self._until = now + next(self._left, self._pauses[-1])
