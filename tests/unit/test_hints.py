"""Every failure of a stage comes with what to do next."""

import pytest

from drainer.mail.reply import Lost, Stage, parse_reply
from drainer.policy.hints import hint

REFUSED = parse_reply(b"550 5.7.1 no")
WORDS = {
    Stage.BANNER: "does not serve this host",
    Stage.EHLO: "[primary] helo",
    Stage.STARTTLS: "TLS settings",
    Stage.AUTH: "password_file",
    Stage.MAIL: "[health] sender",
    Stage.RCPT: "mynetworks",
}


@pytest.mark.parametrize(("stage", "words"), WORDS.items(), ids=list(WORDS))
def test_a_refusal_has_a_hint_for_its_stage(stage: Stage, words: str) -> None:
    """In the words of the settings, ours or the primary's."""
    assert words in hint(stage, REFUSED)


@pytest.mark.parametrize(
    "reason",
    [
        "refused",
        "unreachable",
        "unresolved",
        "timeout",
        "closed",
        "reset",
        "tls",
        "protocol",
    ],
)
@pytest.mark.parametrize("stage", list(Stage))
def test_a_loss_has_a_hint_for_its_reason(stage: Stage, reason: str) -> None:
    """Whatever the stage: nothing listens, no route, a firewall, a certificate."""
    assert hint(stage, Lost(reason=reason))


def test_a_hint_for_the_login_warns_of_locking_it() -> None:
    """More tries make it worse."""
    assert "locked" in hint(Stage.AUTH, REFUSED)
