"""What travels between a drain, the evidence process, and the process of a message.

Each is a frame (drainer.runtime.ipc): plain data of the expected type.
"""

import msgspec

from drainer.bounce.evidence.request import MAX_CONTENT_BYTES, SenderQuestion

MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""Of what the process of a message, or the evidence process, says at once."""
MAX_TASK_BYTES = MAX_CONTENT_BYTES + 1024 * 1024


class EvidenceTask(msgspec.Struct, frozen=True, kw_only=True):
    """From the drain: look at a message, or for the mail servers of a domain."""

    id: int
    #: Seconds for DNS, and for the rest.
    dns_seconds: float
    compute_seconds: float
    #: One of the two.
    question: SenderQuestion | None = None
    domain: str = ""
    #: The drain wants no answer to the task of this id any more.
    cancelled: bool = False


class EvidenceResult(msgspec.Struct, frozen=True, kw_only=True):
    """To the drain: what a task came to."""

    id: int
    #: Facts or Relays, still encoded; b"" with a problem.
    value: bytes = b""
    problem: str = ""
    #: Set when no task can be done, because of the configuration.
    hint: str = ""


class WorkerRequest(msgspec.Struct, frozen=True, kw_only=True):
    """From the process of a message: ask DNS, or take what was found."""

    name: str = ""
    kind: str = ""
    seconds: float = 0.0
    #: Facts or Relays, encoded, at the end.
    value: bytes | None = None
