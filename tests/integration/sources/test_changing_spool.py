"""A spool that changes underneath: nothing partial is ever called delivered."""

from pathlib import Path

import pytest

from tests.support.command.installed import Drainer, write_maildir
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Script, Step, View

BIG = 800_000
CHANGES = {"shrinks": -100_000, "grows": 100_000, "vanishes": None}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_before_its_content_leaves_is_held(
    tmp_path: Path, change: str
) -> None:
    """No final dot follows a content that is not what was surveyed."""
    expected = write_maildir(tmp_path / "spool", 2, size=BIG)
    victim = next((tmp_path / "spool" / "new").glob("*M000001P1*"))
    by = CHANGES[change]

    def alter(view: View) -> Step:
        if view.path == expected[1]:
            if by is None:
                victim.unlink(missing_ok=True)
            else:
                data = victim.read_bytes()
                victim.write_bytes(data[:by] if by < 0 else data + b"x" * by)
        return "250 2.1.5 ok"

    drainer = Drainer(tmp_path / "ledger.db")
    with PeerThread(Script(rcpt=alter)) as peer:
        result = drainer.drain(
            tmp_path / "spool", peer.port, "--no-check", "--connections", 1
        )
        assert result.code == 5, result.stderr
        assert [m.forward_paths for m in peer.accepted] == [[expected[0]]]
    states = drainer.states()
    assert states == {expected[0]: "delivered", expected[1]: "held"}
    assert drainer.status()["balanced"]
    assert by is None or victim.exists(), "what is not delivered stays in the spool"
