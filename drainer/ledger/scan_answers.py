"""The answers of content scanners, so that none is asked twice for one content.

Each function runs inside a transaction of the writer.
"""

from datetime import datetime

import sqlalchemy as sa

from drainer.ledger import schema
from drainer.ledger.columns import from_json, storable, to_json
from drainer.ledger.records import WriteStamp, from_micros
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


def keep_answer(
    connection: sa.Connection,
    stamp: WriteStamp,
    sha256: str,
    scanner: str,
    answer: ScanAnswer,
) -> None:
    """Keep an answer instead of an earlier one."""
    same = (_S.sha256 == sha256, _S.scanner == scanner)
    connection.execute(sa.delete(schema.scan_answers).where(*same))
    row = {
        "sha256": sha256,
        "scanner": scanner,
        "at": stamp.now,
        "verdict": storable(answer.verdict),
        "score": answer.score,
        "symbols": to_json([storable(each) for each in answer.symbols]),
    }
    connection.execute(sa.insert(schema.scan_answers), row)
