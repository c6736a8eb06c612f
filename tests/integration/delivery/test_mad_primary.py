"""A primary that does anything at any moment: nothing lost, nothing doubled unseen."""

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from drainer.policy.recipient.state import FINAL
from tests.integration.smtp.test_doubt import due
from tests.support.command.runner import Bench
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import (
    EXTENSIONS,
    Answer,
    BodyStep,
    Drop,
    DropInBody,
    EarlyReply,
    Garbage,
    Message,
    Raw,
    ReplyThenDrop,
    Reset,
    Script,
    Step,
    View,
)

BUSY = ReplyThenDrop("421 4.3.2 busy")
BAD: dict[str, list[Step]] = {
    "banner": [BUSY, Drop(), Reset(), Garbage()],
    "ehlo": ["451 4.3.0 later", Drop(), Garbage()],
    "mail": [
        "450 4.7.1 later",
        "354 what?",
        BUSY,
        Drop(),
        Reset(),
        Raw(b"250-half\r\n250 whole\r\n"),
        Raw(b"250 ok\n"),
    ],
    "rcpt": [
        "450 4.2.0 later",
        "550 5.1.1 unknown",
        "452 4.5.3 too many",
        "354 what?",
        BUSY,
        Drop(),
        Reset(),
        Raw(b"250 ok\r\r\n"),
    ],
    "data": ["451 4.3.0 later", "250 what?", "554 5.6.0 no", Drop(), Reset()],
    "dot": [
        "451 4.3.0 later",
        "554 5.6.0 no",
        "354 what?",
        BUSY,
        Drop(),
        Reset(),
        Garbage(),
        ReplyThenDrop("250 2.0.0 taken"),
        Raw(b"250-2.0.0 taken\r\n250 2.0.0 indeed\r\n"),
    ],
    "rset": ["500 what?", Drop()],
    "quit": [Drop(), Garbage()],
}
USUAL = {
    "banner": "220 peer.example ESMTP",
    "mail": "250 2.1.0 ok",
    "rcpt": "250 2.1.5 ok",
    "dot": "250 2.0.0 taken",
    "rset": "250 2.0.0 ok",
    "quit": "221 2.0.0 bye",
}


def mad(seed: int, extensions: tuple[str, ...]) -> Script:
    """Return a script that misbehaves every so often, at any stage."""
    chance = random.Random(seed)  # noqa: S311 - not a secret
    lines = ("peer.example", *extensions)
    offer = "".join(f"250-{line}\n" for line in lines[:-1]) + f"250 {lines[-1]}"

    def sane(stage: str, view: View) -> Step:
        if stage == "ehlo":
            return offer
        if stage == "data":
            taken = view.message.forward_paths if view.message else []
            return "354 go ahead" if taken else "554 5.5.1 no valid recipients"
        return USUAL[stage]

    def at(stage: str) -> Answer:
        def answer(view: View) -> Step:
            if chance.random() < 0.12:
                return chance.choice(BAD[stage])
            return sane(stage, view)

        return answer

    def body(_view: View) -> BodyStep | None:
        if chance.random() > 0.1:
            return None
        steps: list[BodyStep] = [
            DropInBody(20),
            EarlyReply(20, "552 5.3.4 too big", then_drop=True),
            EarlyReply(20, "451 4.3.0 later", then_drop=True),
        ]
        return chance.choice(steps)

    answers: dict[str, Any] = {stage: at(stage) for stage in BAD}
    return Script(body=body, extensions=extensions, **answers)


def may_have_taken(message: Message) -> bool:
    """Whether a primary that said this may keep the message nevertheless."""
    return message.content is not None and message.reply[:1] not in ("4", "5")


@pytest.mark.parametrize(
    ("seed", "extensions"),
    [(1, EXTENSIONS), (2, EXTENSIONS), (3, EXTENSIONS[1:])],
    ids=["pipelined-1", "pipelined-2", "one-by-one-3"],
)
def test_nothing_is_lost_and_nothing_doubled_but_what_was_in_doubt(
    tmp_path: Path, seed: int, extensions: tuple[str, ...]
) -> None:
    """P1 and P2: whatever the primary does, and however often it is drained."""
    bench = Bench(tmp_path)
    bench.configure(
        primary={"connections": 3, "max_messages": 7},
        retry={"unknown": "1h"},
        breaker={"give_up_after": "2s", "pauses": ["5ms"]},
    )
    with PeerThread(mad(seed, extensions)) as peer:
        bench.port = peer.port
        everybody = []
        for n in range(25):
            people = [f"{n}-{k}@example.org" for k in range(1 + n % 4)]
            bench.add(*people, sender=f"s{n}@d{n % 9}.example")
            everybody += people
        for _ in range(2):
            code = bench.drain().code
            left = set(bench.states().values()) - {state.value for state in FINAL}
            assert code in (4, 5) if left else code == 0
            bench.assert_balanced()
            due(bench)
        peer.script = Script()
        assert bench.drain().code in (0, 5)
    assert peer.violations == []
    bench.assert_balanced()
    facts = bench.recipients()
    assert sorted(facts) == sorted(everybody)
    tries = Counter(
        path
        for message in peer.messages
        if may_have_taken(message)
        for path in message.forward_paths
    )
    told = {id_: bench.verdicts(id_) for id_ in {fact["id"] for fact in facts.values()}}
    for path, fact in facts.items():
        verdicts = [v for v in told[fact["id"]] if v["forward_path"] == path]
        doubts = sum(1 for v in verdicts if v["verdict"] == "unknown")
        delivered = fact["state"] == "delivered"
        assert fact["state"] in ("delivered", "bounce-pending", "held"), verdicts
        assert tries[path] >= delivered, verdicts
        assert tries[path] <= doubts + delivered, verdicts
        if fact["state"] == "held":
            assert doubts, "nothing else holds"
        if fact["state"] == "bounce-pending":
            assert doubts == 0, "who was in doubt is never bounced"
