"""The answers of content scanners, so that none is asked twice for one content.

Each function runs inside a transaction of the writer.
"""

from datetime import datetime
from functools import partial

import sqlalchemy as sa

from drainer.ledger import schema
from drainer.ledger.columns import from_json, storable, to_json
from drainer.ledger.part import LedgerPart, now
from drainer.ledger.records import Row, from_micros
from drainer.policy.admission.content_scan import ScanAnswer

_S = schema.scan_answers.c


def answers_of(
    connection: sa.Connection, sha256: str
) -> dict[str, tuple[datetime, ScanAnswer]]:
    """Return what is known about a content: time and answer, by scanner."""
    query = sa.select(schema.scan_answers).where(_S.sha256 == sha256)
    return {
        row.scanner: (
            from_micros(row.at),
            ScanAnswer(
                verdict=row.verdict,
                score=row.score,
                symbols=tuple(from_json(row.symbols)),
            ),
        )
        for row in connection.execute(query)
    }


def keep_answer(connection: sa.Connection, row: Row) -> None:
    """Keep an answer instead of an earlier one."""
    same = (_S.sha256 == row["sha256"], _S.scanner == row["scanner"])
    connection.execute(sa.delete(schema.scan_answers).where(*same))
    connection.execute(sa.insert(schema.scan_answers), row)


class ScanLedger(LedgerPart):
    """The answers of content scanners."""

    async def answers(self, sha256: str) -> dict[str, tuple[datetime, ScanAnswer]]:
        """Return what is known about a content: time and answer, by scanner."""
        return await self._call(answers_of, sha256=sha256)

    def keep(self, sha256: str, scanner: str, answer: ScanAnswer) -> None:
        """Keep an answer; do not wait until it is durable. Raises LedgerLost."""
        row = {
            "sha256": sha256,
            "scanner": scanner,
            "at": now(),
            "verdict": storable(answer.verdict),
            "score": answer.score,
            "symbols": to_json([storable(each) for each in answer.symbols]),
        }
        self._submit(partial(keep_answer, row=row))
