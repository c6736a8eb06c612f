"""The exceptions of drainer, as a tree.

An expected outcome of a delivery (a refusal, a lost connection) is a value, never an
exception. An exception means that drainer itself cannot continue::

    DrainerError                  the operator must act; carries the exit code
    +-- UsageError            2   bad arguments, configuration or source
    |   +-- SourceError       2   a spool cannot be read at all
    |   |   +-- SourceLost    1   a spool is away, full or locked: try again later
    |   +-- ClaimConflict     2   a spool is drained with another ledger
    +-- PrimaryNotReady       3   the health check failed; nothing was sent
    +-- OwnedElsewhere        6   another drain works on this source
    +-- LedgerError           2   the ledger cannot be used as configured
    |   +-- LedgerLost        1   unavailable, full or locked; nothing more is sent
    +-- HostLimit             1   this host lacks descriptors, memory or processes
    MessageUnreadable             drainer cannot replay one message and holds it

Messages quote text of strangers, and text of the operator that may contain a password.
So every exception replaces secrets in its text as soon as it is made.
"""

from drainer.runtime.redaction import redact


class DrainerError(Exception):
    """Base of every error that ends a command with a message for the operator.

    ``hint`` says what to do next. drainer prints it on a separate line.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Keep the message (what happened, and where) and the hint (what to do)."""
        super().__init__(redact(message))
        self.hint = redact(hint)


class UsageError(DrainerError):
    """The arguments or the configuration are wrong."""

    exit_code = 2


class SourceError(UsageError):
    """drainer cannot read a source at all: absent, denied, or of another format."""


class SourceLost(SourceError):
    """A spool is unavailable now, and the same command continues when it is back."""

    exit_code = 1


class ClaimConflict(UsageError):
    """The source belongs to another ledger, which knows what was sent from it."""


class PrimaryNotReady(DrainerError):
    """The health check of the primary failed, so nothing was sent."""

    exit_code = 3


class OwnedElsewhere(DrainerError):
    """Another running drain owns everything that is left in this source."""

    exit_code = 6


class LedgerError(DrainerError):
    """The ledger cannot be used as configured: the operator must change something."""

    exit_code = 2


class LedgerLost(LedgerError):
    """The ledger cannot be reached, read or written now, so drainer sends nothing more.

    Its server is unavailable, its disk is full, or another process has locked it. The
    same command continues when that is over.
    """

    exit_code = 1


class HostLimit(DrainerError):
    """This host lacks descriptors, memory, processes or a folder that drainer needs."""


class MessageUnreadable(Exception):
    """One message cannot be read in its present state; drainer holds its recipients.

    ``code`` is a key of :data:`drainer.mail.message.PROBLEMS`.
    """

    def __init__(self, code: str, detail: str) -> None:
        """Take the code of the problem, and what exactly was found."""
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
