"""Addresses in messages: hashed, but for what is no mailbox of mail."""

from pathlib import Path

import pytest

from drainer.cli import log
from drainer.cli.log_addresses import show_as_configured
from drainer.config import Config

TEXT = "550 5.1.1 <anna@example.org>: anna is unknown"


@pytest.fixture(autouse=True)
def _as_before() -> None:
    """Forget what a test before has set."""
    log.show_addresses(lambda text, _: text)


def config(folder: Path, addresses: str) -> Config:
    """Return a configuration whose ledger does not exist."""
    return Config.model_validate(
        {
            "ledger": {"url": f"sqlite:///{folder}/none.db"},
            "telemetry": {"addresses": addresses},
        }
    )


def test_a_message_is_hashed_also_without_a_ledger(tmp_path: Path) -> None:
    """With a key of its own; the local parts of the mail that it is about, too."""
    show_as_configured(config(tmp_path, "hashed"))
    assert "anna" not in log.mask_addresses(TEXT)
    assert (
        log.mask_addresses("no user bert here", ["bert@example.org"])
        != "no user bert here"
    )
    assert not (tmp_path / "none.db").exists()


def test_plain_messages_stay(tmp_path: Path) -> None:
    """As an operator has chosen."""
    show_as_configured(config(tmp_path, "plain"))
    assert log.mask_addresses(TEXT) == TEXT


@pytest.mark.parametrize(
    "text",
    [
        "the ledger postgresql+psycopg://drainer@db.example/mail does not answer",
        "draining to mx.example.org:25",
    ],
)
def test_what_is_no_mailbox_stays(tmp_path: Path, text: str) -> None:
    """The user of a database, and hosts; the ledger is not opened for them."""
    show_as_configured(config(tmp_path, "hashed"))
    assert log.mask_addresses(text) == text
