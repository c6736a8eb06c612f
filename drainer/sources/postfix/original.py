"""Find the queue that a copy was made of, on this host.

The copy does not say so. Its ``pid/master.pid`` names the master of a running original.
Otherwise a queue of an instance of this host is the original if it has the same mail.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from drainer.errors import MessageUnreadable, SourceError
from drainer.sources.common.processes import PROC, is_running
from drainer.sources.postfix.instance import DEFAULT_DIRECTORY, instances
from drainer.sources.postfix.layout import DEFAULT_QUEUES, HELD
from drainer.sources.postfix.master import master_number, master_runs
from drainer.sources.postfix.source import PostfixQueue

_COMMAND = re.compile("master$")
_COMPARED = 20
"""Messages of a copy that are looked for; one is enough."""


class OriginalQueue(NamedTuple):
    """The queue directory that a copy was made of."""

    directory: str
    #: The configuration directory of its instance; '' if no instance here uses it.
    config_directory: str
    is_running: bool

    @property
    def url(self) -> str:
        """The source that `drainer spool settle` takes at the moment."""
        if self.is_running and self.config_directory == DEFAULT_DIRECTORY:
            return "postfix:live"
        if self.is_running and self.config_directory:
            return f"postfix:live={self.config_directory}"
        return f"postfix:{self.directory}"

    def ids(self) -> set[str]:
        """Return the queue ids of the messages in it; raises SourceError."""
        queue = PostfixQueue(self.directory, queues=(*DEFAULT_QUEUES, HELD))
        return {entry.place.name for entry in queue.entries()}


def find_original(copy: PostfixQueue) -> OriginalQueue | None:
    """Return the original of a copy; None when it is not on this host."""
    if copy.copy_of:
        configured = dict(_queues())
        return _original(copy.copy_of, configured.get(copy.copy_of, ""))
    root = str(copy.roots()[0])
    for directory, config in _queues():
        if _is_other(directory, root) and _has_same_mail(copy, directory):
            return _original(directory, config)
    running = _running_master(root)
    return _original(running, "") if running and _is_other(running, root) else None


def _original(directory: str, config: str) -> OriginalQueue:
    return OriginalQueue(directory, config, master_runs(directory))


def _queues() -> Iterator[tuple[str, str]]:
    for each in instances():
        yield os.path.realpath(each.queue_directory), each.directory


def _is_other(directory: str, root: str) -> bool:
    with suppress(OSError):
        return not Path(directory).samefile(root)
    return False


def _has_same_mail(copy: PostfixQueue, directory: str) -> bool:
    """Return whether a queue has one of the first messages of a copy, or its master."""
    if _running_master(str(copy.roots()[0])) == directory:
        return True
    with suppress(SourceError):
        queue = PostfixQueue(directory)
        for spooled in islice(copy.scan(), _COMPARED):
            with suppress(MessageUnreadable):
                queue.open(spooled.message)
                return True
    return False


def _running_master(root: str) -> str:
    """Return where the master works whose number a copy has; '' if it does not run."""
    number = master_number(root)
    with suppress(OSError):
        if is_running(number, _COMMAND):
            return str((PROC / str(number) / "cwd").readlink())
    return ""
