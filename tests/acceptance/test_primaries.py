"""A whole drain into each kind of real server: what the field's primaries answer.

One of twenty recipients does not exist. Each server says that in its own words. No
known-good recipient is configured.
"""

from collections import Counter

import pytest

from tests.support.mta.others import KINDS
from tests.support.mta.postfix import instance_directory
from tests.support.scenarios.backup import Backup
from tests.support.scenarios.primaries import REMAIN, letters, user

COUNT = 120
STRANGERS = frozenset(user(n) for n in range(7, COUNT, 20))


@pytest.mark.parametrize("kind", KINDS)
def test_a_real_primary_gets_all_mail_once_and_judges_strangers_only(
    backup: Backup, kind: str
) -> None:
    """All others arrive once, in one drain; exactly the strangers wait."""
    server = KINDS[kind]
    if reason := server.missing_reason():
        pytest.skip(reason)
    mail = letters(COUNT)
    everybody = {path for each in mail for path in each.recipients}
    with (
        instance_directory() as base,
        server(base, everybody - STRANGERS) as primary,
    ):
        backup.port = primary.port
        backup.configure(primary={"connections": 4}, breaker={"give_up_after": "20s"})
        backup.fill(mail, never=STRANGERS)
        result = backup.empty()
        assert result.code == REMAIN, (result, primary.log())
        states = backup.states()
        waiting = {path for path, state in states.items() if state != "delivered"}
        assert waiting == STRANGERS, (waiting, primary.log())
        assert {states[path] for path in STRANGERS} == {"bounce-pending"}
        delivered = primary.wait_delivered(COUNT - len(STRANGERS))
        assert delivered == Counter(everybody - STRANGERS)
        backup.assert_balanced()
