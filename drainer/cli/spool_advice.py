"""What is to be done with a spool after a drain: a sentence, and a line to paste.

A spool that still has delivered mail is a trap: its own server would send it again.
"""

import shlex
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from drainer.cli.output import say, warn
from drainer.errors import MessageUnreadable, SourceError
from drainer.ledger.query.message_states import find_final_ids
from drainer.ledger.reader import LedgerReader
from drainer.sources.archive.source import ArchiveSource
from drainer.sources.common.queue_directory import QueueDirectory
from drainer.sources.exim.source import EximSpool
from drainer.sources.postfix.hold import PostfixHold
from drainer.sources.postfix.instance import DEFAULT_DIRECTORY, PostfixInstance
from drainer.sources.postfix.layout import DEFAULT_QUEUES, HELD, UNCLEANED
from drainer.sources.postfix.live import PostfixLive
from drainer.sources.postfix.original import find_original
from drainer.sources.postfix.source import PostfixQueue
from drainer.sources.postfix.spool import PostfixSpool
from drainer.sources.protocol import HoldingSource, Source

_SERVERS: Mapping[str, str] = {
    "postfix": "Postfix",
    "exim": "Exim",
    "sendmail": "sendmail",
    "haraka": "Haraka",
    "opensmtpd": "OpenSMTPD",
    "qmail": "qmail",
}
"""The servers that send what is in their queues, by the scheme of the source."""
_USUAL_QUEUE = "/var/spool/postfix"
USUAL_EXIM = ("/var/spool/exim4", "/var/spool/exim")
"""Where Debian and others have the spool of Exim."""
_COMPARED = 20
"""Messages of a copy that are looked for in an original; one is enough."""
_NOT_READY = frozenset({3, 4})
"""Exit statuses of a drain that the primary refuses."""


class SpoolAdvice(NamedTuple):
    """What an operator does with a spool next."""

    words: str
    #: A line for the shell; '' if there is nothing to run.
    command: str = ""


class DrainOutcome(NamedTuple):
    """What the advice depends on, besides the spool."""

    code: int
    #: The options that name the same ledger in another command.
    options: str
    report: LedgerReader


def introduce(source: Source) -> None:
    """Print what an operator must know of a copy before it is drained."""
    if not isinstance(source, PostfixQueue) or isinstance(source, PostfixHold):
        return
    original = find_original(source)
    if original is None:
        say(f"{source.url} does not belong to a Postfix of this host: drainer keeps it")
    elif original.is_running:
        warn(
            f"{source.url} is a copy of {original.directory}, whose Postfix runs and"
            " sends the same mail: stop it (postfix stop), or drain postfix:live"
        )
    else:
        say(f"{source.url} is a copy of {original.directory}")


def advice_on(source: Source, outcome: DrainOutcome) -> SpoolAdvice:
    """Return what is to be done with a source after a drain of it."""
    if isinstance(source, PostfixLive):
        return SpoolAdvice(f"{source.url}: Postfix runs, and has back what is left.")
    if isinstance(source, PostfixSpool) and source.acknowledges:
        return _on_settled(source, outcome)
    if isinstance(source, PostfixSpool):
        words = f"{source.url} keeps its mail. Before Postfix starts on it, settle it:"
        return SpoolAdvice(words, _settle(source.url, outcome))
    if isinstance(source, PostfixQueue):
        return _on_copy(source, outcome)
    scheme = source.url.partition(":")[0]
    if isinstance(source, EximSpool):
        rest = "has only lost" if source.acknowledges else "keeps its mail, also"
        words = (
            f"{source.url} {rest} what is finished. Before Exim starts on it, or on the"
            " original of a copy, settle that, or Exim delivers mail again:"
        )
        return SpoolAdvice(words, _settle(_exim_original(source), outcome))
    if isinstance(source, QueueDirectory | ArchiveSource) and scheme in _SERVERS:
        return _on_kept(source, _SERVERS[scheme], outcome)
    if source.acknowledges:
        return SpoolAdvice(f"{source.url}: what is finished has left it.")
    words = f"{source.url} keeps its mail; the ledger knows what is delivered."
    return SpoolAdvice(words)


def _on_settled(source: PostfixSpool, outcome: DrainOutcome) -> SpoolAdvice:
    queues = (*DEFAULT_QUEUES, UNCLEANED)
    left = sum(1 for queue in queues for _ in source.walk((queue,)))
    others = sum(1 for _ in source.walk((HELD,))) - source.on_hold
    words = (
        f"{source.url} is settled: {left} messages are left to Postfix,"
        f" {source.on_hold} stay on hold for drainer, {max(others, 0)} for others."
    )
    if left and outcome.code in _NOT_READY:
        words += (
            " Do not start Postfix before the primary accepts mail again: it would"
            " bounce what is refused. Then run the same command again."
        )
        return SpoolAdvice(words)
    if source.on_hold:
        words += " The next drain continues with those, also of postfix:live."
    if source.instance is None:
        return SpoolAdvice(f"{words} Its Postfix may start.")
    return SpoolAdvice(f"{words} Start the backup again:", _start(source.instance))


def _start(instance: PostfixInstance) -> str:
    if instance.directory != DEFAULT_DIRECTORY:
        return f"postfix -c {shlex.quote(instance.directory)} start"
    has_systemd = Path("/run/systemd/system").is_dir()
    return "systemctl start postfix" if has_systemd else "postfix start"


def _on_copy(source: PostfixQueue, outcome: DrainOutcome) -> SpoolAdvice:
    try:
        original = find_original(source)
        held = original.ids() if original is not None else set()
    except SourceError as error:
        words = f"{source.url} is a copy, and drainer cannot read its original: {error}"
        return SpoolAdvice(words)
    if original is None:
        words = (
            f"{source.url} keeps its mail, and its original has it too. Before Postfix"
            " starts on either, settle it there:"
        )
        return SpoolAdvice(words, _settle(f"postfix:{_USUAL_QUEUE}", outcome))
    count = sum(1 for id_ in find_final_ids(outcome.report, source.url) if id_ in held)
    where = f"{original.directory}, the original of {source.url},"
    if not count:
        return SpoolAdvice(f"{where} has no message that is delivered.")
    words = f"{where} still has {count} messages that are delivered, all or in part."
    if original.is_running:
        words += " Its Postfix runs, and delivers them again. Settle it now:"
    else:
        words += " Before its Postfix starts, settle it:"
    return SpoolAdvice(words, _settle(original.url, outcome))


def _on_kept(source: Source, server: str, outcome: DrainOutcome) -> SpoolAdvice:
    words = (
        f"{source.url} keeps its mail. Do not start {server} on it, or on the original"
        " of a copy: it would deliver the mail again."
    )
    if isinstance(source, ArchiveSource):
        original = {"Postfix": _USUAL_QUEUE, "Exim": USUAL_EXIM[0]}.get(server)
        if original is None:
            return SpoolAdvice(words)
        command = _settle(f"{server.lower()}:{original}", outcome)
        return SpoolAdvice(f"{words} Settle the original first:", command)
    if source.acknowledges:
        words = (
            f"{source.url} has lost what is finished. A message with a recipient left"
            f" is whole: {server} would send it to all of them."
        )
    return SpoolAdvice(words)


def _exim_original(source: EximSpool) -> str:
    """Return the URL of the usual spool if it has the same mail; else the source's."""
    for place in USUAL_EXIM:
        with suppress(SourceError):
            original = EximSpool(place)
            for spooled in islice(source.scan(), _COMPARED):
                with suppress(MessageUnreadable):
                    original.open(spooled.message)
                    return original.url
    return source.url


def _settle(url: str, outcome: DrainOutcome) -> str:
    return f"drainer spool settle {shlex.quote(url)}{outcome.options}"


def name_holds(sources: Iterable[Source]) -> None:
    """Say that mail stays on hold after a sudden end, and what gives it back."""
    for source in sources:
        if isinstance(source, HoldingSource):
            warn(
                "what drainer put on hold stays there. Run the drain again, or:"
                f" drainer spool give-back {shlex.quote(source.url)}"
            )
