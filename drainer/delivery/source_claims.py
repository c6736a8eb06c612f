"""The claims of a drain on its sources: one ledger drains a source of files.

A drain takes a claim before the run starts, and releases it after the run has ended in
the ledger. It removes the marker when the ledger no longer knows anything that the
source may hold.
"""

import os
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from drainer.errors import ClaimConflict, DrainerError
from drainer.ledger import engine
from drainer.ledger.engine import LedgerURL
from drainer.ledger.reader import LedgerReader
from drainer.runtime.file_rights import user_name
from drainer.sources.common.claim import Claimant, FileSource, SourceClaim
from drainer.sources.protocol import LiveSource, Source

_FINISHED = frozenset({0, 5})
_RETURNED = frozenset({0, 3, 4, 5, 130})
"""Exit codes of runs after which a live server has back what is not final."""


class SourceClaims:
    """The claims of one run; sources that are not files have none."""

    def __init__(self, sources: Iterable[Source], folders: Sequence[Path]) -> None:
        """Claim nothing yet; ``folders`` are for sources that cannot be written."""
        self._sources: dict[str, FileSource] = {
            source.url: source for source in sources if isinstance(source, FileSource)
        }
        self._folders = folders
        self._claims: dict[str, SourceClaim] = {}
        #: Why a source is not ours, by its URL.
        self.refused: dict[str, ClaimConflict] = {}

    @property
    def replaced(self) -> list[tuple[str, str]]:
        """The sources that were taken over, each with its former ledger in words."""
        return [(u, each) for u, c in self._claims.items() for each in c.replaced]

    @property
    def elsewhere(self) -> list[tuple[str, str]]:
        """The sources that cannot be written, each with the path of its marker."""
        return [(u, each) for u, c in self._claims.items() for each in c.elsewhere]

    def take(self, ledger: LedgerURL, shown: str, *, take_over: bool) -> None:
        """Claim all for a ledger, made if need be; ``refused`` has the conflicts.

        When one is refused the others are released. Raises LedgerError, SourceError.
        """
        if not self._sources:
            return
        engine.connect(ledger, create=True).dispose()
        with LedgerReader(ledger) as report:
            identity = report.identity()
        claimant = Claimant(
            identity, shown, socket.gethostname(), user_name(os.geteuid())
        )
        try:
            for url, source in self._sources.items():
                claim = SourceClaim(source, claimant, self._folders)
                try:
                    claim.take(take_over=take_over)
                except ClaimConflict as refusal:
                    self.refused[url] = refusal
                else:
                    self._claims[url] = claim
        except BaseException:
            self.release(ledger, 1)
            raise

    def release(self, ledger: LedgerURL, code: int) -> None:
        """Release all after a run with this exit code; remove finished markers."""
        done: set[str] = set()
        with suppress(DrainerError), LedgerReader(ledger) as report:
            done = {url for url in self._claims if self._is_done(report, url, code)}
        for url, claim in self._claims.items():
            claim.release(finished=url in done)

    def _is_done(self, report: LedgerReader, url: str, code: int) -> bool:
        """Return whether the source holds nothing that was, or is to be, delivered."""
        source, claim = self._sources[url], self._claims[url]
        if isinstance(source, LiveSource) and code in _RETURNED:
            return True
        if not report.has_messages(url):
            return claim.is_new or (source.acknowledges and code in _FINISHED)
        may_remain = report.has_messages(url, unacknowledged=True)
        return source.acknowledges and code in _FINISHED and not may_remain
