"""Find the content of a quarantined message."""

from drainer.bounce.quarantine.store import Quarantine
from drainer.config import Config
from drainer.config.build.paths import kept_folder, ledger_url, quarantine_folder
from drainer.config.build.spools import make_sources
from drainer.errors import DrainerError, MessageUnreadable
from drainer.ledger.codec import message_of, recipient_of
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import Row
from drainer.mail.message import Message, SpooledMessage
from drainer.sources.protocol import Source

COPY, SOURCE, MISSING = "copy", "source", "missing"


class ContentFinder:
    """Finds content in the quarantine, else in the sources; changes nothing."""

    def __init__(self, config: Config, report: LedgerReader) -> None:
        """List the copies in the quarantine."""
        self.quarantine = Quarantine(quarantine_folder(ledger_url(config)))
        self._config = config
        self._report = report
        self._kept = Quarantine(kept_folder(ledger_url(config)))
        self._copied = self.quarantine.copied()
        self._delivered = self._kept.copied()
        self._sources: dict[str, Source | None] = {}
        self._where: dict[str, str] = {}

    def where(self, id_: str) -> str:
        """Return COPY, SOURCE, or MISSING when this host has neither."""
        if id_ in self._copied or id_ in self._delivered:
            return COPY
        if id_ not in self._where:
            found = self._in_source(message_of(self._report.message(id_)))
            self._where[id_] = SOURCE if found else MISSING
        return self._where[id_]

    def open(self, id_: str, rows: list[Row]) -> SpooledMessage:
        """Open a message for these recipients; MessageUnreadable if it is missing."""
        recipients = tuple(recipient_of(row) for row in rows)
        message = message_of(self._report.message(id_), recipients)
        spooled = self.quarantine.open(message) or self._kept.open(message)
        if spooled is None and (found := self._in_source(message)):
            spooled = SpooledMessage(message=message, content=found.content)
        if spooled is None:
            code, detail = "vanished", "neither the quarantine nor its source has it"
            raise MessageUnreadable(code, detail)
        return spooled

    def _in_source(self, message: Message) -> SpooledMessage | None:
        source = self._source(message.source)
        try:
            return source.open(message) if source else None
        except (MessageUnreadable, DrainerError):
            return None

    def _source(self, url: str) -> Source | None:
        """Return the configured source, else one by its URL; None if it is gone."""
        if url not in self._sources:
            self._sources[url] = None
            for name in (*self._config.sources, url):
                try:
                    opened = make_sources(self._config, [name], [], listing=True)
                except DrainerError:
                    continue
                for each in opened:
                    if self._sources.get(each.url) is None:
                        self._sources[each.url] = each
        return self._sources[url]
