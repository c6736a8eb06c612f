"""Messages between a drain, the evidence process, and the process of a message.

Each is a frame (drainer.runtime.ipc): plain data of the expected type.
"""

import msgspec

from drainer.bounce.evidence.request import MAX_CONTENT_BYTES, SenderQuestion

MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""Bytes that the process of a message, or the evidence process, sends at once."""
MAX_TASK_BYTES = MAX_CONTENT_BYTES + 1024 * 1024


class EvidenceTask(msgspec.Struct, frozen=True, kw_only=True):
    """From the drain: check a message, or find the mail servers of a domain."""

    id: int
    #: Seconds for DNS, and for the rest.
    dns_seconds: float
    compute_seconds: float
    #: One of the two.
    question: SenderQuestion | None = None
    domain: str = ""
    #: The drain no longer wants an answer to the task of this id.
    cancelled: bool = False


class EvidenceResult(msgspec.Struct, frozen=True, kw_only=True):
    """To the drain: the result of a task."""

    id: int
    #: Facts or relays, still encoded; b"" with a problem.
    value: bytes = b""
    problem: str = ""
    #: Set if no task can be done, because of the configuration.
    hint: str = ""


class WorkerRequest(msgspec.Struct, frozen=True, kw_only=True):
    """From the process of a message: ask DNS, or return what was found."""

    name: str = ""
    kind: str = ""
    seconds: float = 0.0
    #: Facts or relays, encoded, at the end.
    value: bytes | None = None
