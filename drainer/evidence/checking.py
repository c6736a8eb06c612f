"""The checks in a process of their own, which is killed when one takes too long.

dkimpy and pyspf hold the interpreter's lock while they compute, so that a thread
would stall every session. The other end is ``answering``; a new process is started
after a kill.
"""

import asyncio
import contextlib
import sys
from types import TracebackType
from typing import Self

from drainer.errors import DrainerError
from drainer.evidence import Question, Settings
from drainer.policy.facts import Facts, Reach
from drainer.process import (
    HEAD,
    Frames,
    child_environment,
    framed,
)

COMPUTE_SECONDS = 30.0
"""For one message, besides the budget for DNS."""

_PIPE_LIMIT = 1024 * 1024


class Checks:
    """Asks the process, one question at a time; an async context manager."""

    def __init__(
        self, settings: Settings, *, compute_seconds: float = COMPUTE_SECONDS
    ) -> None:
        """Start nothing yet; a message may compute for so long, and ask DNS besides."""
        self._settings = settings
        self._limit = settings.servers.budget + compute_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Return itself; the process starts with the first question."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        await self._end()

    async def facts(self, question: Question) -> Facts:
        """Return the facts about one message.

        A message whose checks take too long, or end the process, has no evidence:
        that would happen again. Cancelling ends the process.
        """
        async with self._turn:
            try:
                # Not wait_for: before Python 3.12 it loses a cancellation that meets
                # the answer, and a drain would wait for this for ever.
                async with asyncio.timeout(self._limit):
                    return await self._ask(question)
            except TimeoutError:
                await self._end()
                return _nothing(question, "the checks took too long")
            except (OSError, asyncio.IncompleteReadError):
                await self._end()
                return _nothing(question, "the checks failed")
            except BaseException:
                await self._end()  # half a question may be on its way
                raise

    async def _ask(self, question: Question) -> Facts:
        process = self._process or await self._start()
        assert process.stdin is not None  # noqa: S101 - pipes were asked for
        assert process.stdout is not None  # noqa: S101
        process.stdin.write(framed(question))
        await process.stdin.drain()
        frames = Frames()
        head = await process.stdout.readexactly(HEAD.size)
        body = await process.stdout.readexactly(HEAD.unpack(head)[0])
        (answer,) = frames.feed(head + body)
        if isinstance(answer, DrainerError):
            raise answer
        assert isinstance(answer, Facts)  # noqa: S101 - written below
        return answer

    async def _start(self) -> asyncio.subprocess.Process:
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",  # never import from the current folder, which may be anybody's
            "-m",
            "drainer.evidence.answering",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=child_environment(),
            limit=_PIPE_LIMIT,
            start_new_session=True,  # Ctrl-C is for the drain
        )
        assert process.stdin is not None  # noqa: S101
        process.stdin.write(framed(self._settings))
        return process

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _nothing(question: Question, reason: str) -> Facts:
    return Facts(
        reverse_path=question.reverse_path,
        client=question.client,
        login=question.login,
        reach=Reach.LATER,
        skipped={f"V{n}": reason for n in range(3, 7)},
    )
