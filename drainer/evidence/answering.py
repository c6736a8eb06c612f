"""The process that checks: questions on standard input, facts on standard output.

It keeps the DNS answers of the run. Both are framed; the settings come first.
"""

import resource
import sys
from typing import IO, Self

from drainer.errors import DrainerError
from drainer.evidence import Question, Settings
from drainer.evidence.dns import Dns
from drainer.evidence.gather import gather
from drainer.process import HEAD, Frames, framed, leave_signals_to_parent

MEMORY_BYTES = 2 * 1024**3
"""Address space of the process."""


class Values:
    """Reads framed values from a blocking stream until it ends."""

    def __init__(self, stream: IO[bytes]) -> None:
        """Read from this stream."""
        self._stream = stream

    def __iter__(self) -> Self:
        """Return itself."""
        return self

    def __next__(self) -> object:
        """Return the next value."""
        head = self._stream.read(HEAD.size)
        if len(head) < HEAD.size:
            raise StopIteration
        body = self._stream.read(HEAD.unpack(head)[0])
        return next(Frames().feed(head + body))


def main() -> None:
    """Answer the questions of standard input on standard output."""
    leave_signals_to_parent()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    out = sys.stdout.buffer
    sys.stdout = sys.stderr  # what a library prints is not an answer
    values = Values(sys.stdin.buffer)
    settings = next(values)
    assert isinstance(settings, Settings)  # noqa: S101 - from our parent
    dns: Dns | None = None
    for question in values:
        assert isinstance(question, Question)  # noqa: S101
        try:
            dns = dns or Dns(settings.servers)
            answer: object = gather(dns, settings, question)
        except DrainerError as error:
            answer = error
        out.write(framed(answer))
        out.flush()


if __name__ == "__main__":
    main()
