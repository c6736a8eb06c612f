"""The queue id in the reply to the final dot."""

import pytest

from drainer.mail.queue_id import queue_id_of


@pytest.mark.parametrize(
    ("reply", "id_"),
    [
        ("250 2.0.0 Ok: queued as 4bX1Yz3Qk2z", "4bX1Yz3Qk2z"),
        ("250 2.0.0 from MTA(smtp:[127.0.0.1]:10025): 250 2.0.0 Ok: queued as 8F2A1",
         "8F2A1"),
        ("250 OK id=1vPq2x-0000000A2bC-3dEf", "1vPq2x-0000000A2bC-3dEf"),
        ("250 2.6.0 <x@y> [InternalId=123456789, Hostname=a] Queued mail for delivery",
         "123456789"),
        ("250 Message Queued (8A2C-11.1)", "8A2C-11.1"),
        ("250 2.0.0 5ARJ2x012345 Message accepted for delivery", "5ARJ2x012345"),
        ("250 2.0.0 9fbf3a1c Message accepted for delivery", "9fbf3a1c"),
        ("250 2.0.0 OK  1764500000 a1b2c3d4e5f6 - gsmtp".replace("  ", " "),
         "a1b2c3d4e5f6"),
        ("250 ok 1764500000 qp 12345", "1764500000 qp 12345"),
        ("250 2.0.0 taken", ""),
        ("250 ok", ""),
        ("550 5.1.1 queued as X1234", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_the_forms_of_the_usual_servers(reply: str, id_: str) -> None:
    """Postfix, Exim, Exchange, Haraka, Sendmail, OpenSMTPD, Google, qmail."""
    assert queue_id_of(reply) == id_


def test_a_hostile_reply_takes_no_time() -> None:
    """It is cut, and no form repeats two parts."""
    for text in ("queued " * 10_000, "id=" * 30_000, "a" * 100_000, "(" * 100_000):
        assert queue_id_of(f"250 2.0.0 {text}") in ("", "queued")
