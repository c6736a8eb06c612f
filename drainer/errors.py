"""The exceptions of drainer, drawn as a tree.

Expected endings of a delivery (a refusal, a lost connection) are values, never
exceptions. What is raised means that drainer itself cannot continue::

    DrainerError                  a person must act; carries the exit code
    +-- UsageError            2   bad arguments, configuration or source
    |   +-- SourceError       2   a spool cannot be read at all
    |   |   +-- SourceLost    1   a database spool went away during the run
    |   +-- ClaimConflict     2   a spool is drained with another ledger
    +-- PrimaryNotReady       3   the health check failed; nothing was sent
    +-- OwnedElsewhere        6   another drain works on this source
    +-- LedgerError           2   the ledger cannot be used as configured
    |   +-- LedgerLost        1   it is away, full or locked; nothing more is sent
    +-- HostLimit             1   this host lacks descriptors, memory or processes
    MessageUnreadable             one message cannot be replayed: it is held

What a message quotes is a stranger's, or the operator's with a password in it, so that
secrets are replaced as soon as it is made.
"""

from drainer.runtime.redaction import redact


class DrainerError(Exception):
    """Base of everything that ends a command with a message for a person.

    ``hint`` says what to do next; it is printed on a line of its own.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Keep the message (what happened, and where) and the hint (what to do)."""
        super().__init__(redact(message))
        self.hint = redact(hint)


class UsageError(DrainerError):
    """The arguments or the configuration cannot be followed."""

    exit_code = 2


class SourceError(UsageError):
    """A source as a whole cannot be read: absent, denied, or not what was said."""


class SourceLost(SourceError):
    """A database spool went away while it was in use."""

    exit_code = 1


class ClaimConflict(UsageError):
    """A source is, or was, drained with another ledger, which knows what was sent."""


class PrimaryNotReady(DrainerError):
    """The health check of the primary failed, so nothing was sent."""

    exit_code = 3


class OwnedElsewhere(DrainerError):
    """Another living drain owns everything that is left in this source."""

    exit_code = 6


class LedgerError(DrainerError):
    """The ledger cannot be used as configured: a person must change something."""

    exit_code = 2


class LedgerLost(LedgerError):
    """The ledger cannot be reached, read or written now; nothing more may be sent.

    Its server is away, its disk is full, or another process has it locked. The same
    command continues when that is over.
    """

    exit_code = 1


class HostLimit(DrainerError):
    """This host lacks descriptors, memory, processes or a folder that drainer needs."""


class MessageUnreadable(Exception):
    """One message cannot be read as it stands; its recipients are held.

    ``code`` is a key of :data:`drainer.mail.message.PROBLEMS`.
    """

    def __init__(self, code: str, detail: str) -> None:
        """Name the problem by its code and say what exactly was found."""
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
