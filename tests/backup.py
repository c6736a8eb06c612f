"""A backup with mail for a primary that may be sick, and what no drain may do to it."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from drainer.config import Config
from tests.primaries import DOMAIN, SENDER, Mail, Outcome, Scenario
from tests.running import Bench, Result

PATIENCE: Final = 15
"""Seconds until a primary that is well must have everything; most is the escrow's."""
REFUSED: Final = frozenset(("bounce-pending", "quarantined", "bounced"))
"""What may become of a recipient whom the primary refuses rightly."""

Delivered = Callable[[], Counter[str]]
"""Tells how many copies each recipient got."""


def escrow(duration: str) -> dict[str, dict[str, object]]:
    """Return the section that says how long a refusal rests."""
    known = "bounce" in Config.model_fields
    return {"bounce": {"escrow": duration}} if known else {}


@dataclass(slots=True)
class Backup(Bench):
    """A spool of mail; what is final leaves it."""

    #: By queue id.
    mail: dict[str, Mail] = field(default_factory=dict)
    #: Whom the primary refuses for good, and rightly.
    never: frozenset[str] = frozenset()

    def prepare(self, scenario: Scenario, *, known_good: bool) -> None:
        """Configure and fill it as the scenario wants it."""
        self.configure(
            primary={
                "domains": scenario.domains,
                "connections": scenario.connections,
            },
            gate={"give_up_after": scenario.give_up_after},
            **escrow(scenario.escrow),
        )
        if known_good:
            self.know(*scenario.known_good)
        self.fill(scenario.mail, never=scenario.never)

    def know(self, *addresses: str) -> None:
        """Configure known-good recipients."""
        known = addresses or (f"known@{DOMAIN}",)
        self.configure(health={"accept": known, "sender": SENDER})

    def fill(self, mail: Sequence[Mail], never: frozenset[str] = frozenset()) -> None:
        """Lay the mail into the spool."""
        self.never = never
        for each in mail:
            name = self.add(*each.recipients, sender=each.sender, text=each.text)
            self.mail[name] = each

    def empty(self) -> Result:
        """Drain it, without a check beforehand; what is final leaves the spool."""
        source = f"postfix:{self.spool}?ack=remove"
        return self.run("drain", source, "--json", "--no-check")

    @property
    def addressed(self) -> set[str]:
        """Everybody who has mail in it."""
        return {path for mail in self.mail.values() for path in mail.recipients}

    @property
    def left(self) -> set[str]:
        """The queue ids that still have their file."""
        return {path.name for path in self.spool.rglob("*") if path.is_file()}

    # ---- what must hold

    def assert_outcome(self, expected: Outcome) -> None:
        """Check the state of each recipient while the primary is sick."""
        states = self.states()
        assert set(states) == self.addressed
        refused = {path for path, state in states.items() if state == "bounce-pending"}
        delivered = {path for path, state in states.items() if state == "delivered"}
        waiting = set(states) - refused - delivered
        assert refused == expected.refused
        assert waiting == expected.waiting
        assert {states[path] for path in waiting} <= expected.waits_as

    def assert_nothing_lost(self, delivered: Delivered) -> None:
        """Check that nobody is judged wrongly and no file went but with its mail."""
        states, copies = self.states(), delivered()
        final = {
            path
            for path, state in states.items()
            if state in REFUSED and state != "bounce-pending"
        }
        assert final <= self.never
        assert {p for p, state in states.items() if state == "delivered"} <= set(copies)
        for name in set(self.mail) - self.left:
            assert set(self.mail[name].recipients) <= set(copies) | final
        self.assert_balanced()

    def deliver_the_rest(self, delivered: Delivered) -> Result:
        """Drain until everybody has mail who is to have it; held ones are released.

        Nobody else may have any.
        """
        wanted = self.addressed - self.never
        deadline = time.monotonic() + PATIENCE
        while True:
            if "held" in self.states().values():
                verb = ("release", "--state", "held", "--reason", "the primary is well")
                assert self.run(*verb).code == 0
            result = self.empty()
            self.assert_nothing_lost(delivered)
            if set(delivered()) >= wanted:
                assert set(delivered()) == wanted
                return result
            assert time.monotonic() < deadline, (result, self.states())
