"""A backup with mail for a primary that may be broken, and what no drain may do."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from drainer.sources.common.marker import MARKER
from tests.support.command.runner import Bench, Result
from tests.support.scenarios.primaries import DOMAIN, SENDER, Mail, Outcome, Scenario

PATIENCE: Final = 15
"""Seconds until a healthy primary must have everything; mostly confirmation delay."""
REFUSED: Final = frozenset(("bounce-pending", "quarantined", "bounced"))
"""What may become of a recipient whom the primary refuses rightly."""

Delivered = Callable[[], Counter[str]]
"""Tells how many copies each recipient got."""


def confirm_after(duration: str) -> dict[str, dict[str, object]]:
    """Return the section that says how long a refusal rests.

    Then it is final at once: drainer looks for no evidence about the sender.
    """
    return {"bounce": {"confirm_after": duration, "send": False}}


@dataclass(slots=True)
class Backup(Bench):
    """A spool of mail; what is final leaves it."""

    #: By queue id.
    mail: dict[str, Mail] = field(default_factory=dict)
    #: Whom the primary refuses for good, and rightly.
    never: frozenset[str] = frozenset()

    def prepare(self, scenario: Scenario, *, known_good: bool) -> None:
        """Configure and fill it as the scenario wants it."""
        self.adapt(scenario, known_good=known_good)
        self.fill(scenario.mail, never=scenario.never)

    def adapt(self, scenario: Scenario, *, known_good: bool) -> None:
        """Configure it as the scenario wants it."""
        self.configure(
            primary={
                "domains": scenario.domains,
                "connections": scenario.connections,
            },
            breaker={"give_up_after": scenario.give_up_after},
            **confirm_after(scenario.confirm_after),
        )
        if known_good:
            self.know(*scenario.known_good)

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

    def empty_all(self) -> Result:
        """Release what is held, and drain it."""
        if "held" in self.states().values():
            verb = ("release", "--state", "held", "--reason", "the primary is well")
            assert self.run(*verb).code == 0
        return self.empty()

    @property
    def addressed(self) -> set[str]:
        """Everybody who has mail in it."""
        return {path for mail in self.mail.values() for path in mail.recipients}

    @property
    def left(self) -> set[str]:
        """The queue ids that still have their file."""
        found = {path.name for path in self.spool.rglob("*") if path.is_file()}
        return found - {MARKER}

    # ---- what must hold

    def assert_outcome(self, expected: Outcome) -> None:
        """Check the state of each recipient while the primary is broken."""
        states = self.states()
        assert set(states) == self.addressed, set(states) ^ self.addressed
        refused = {path for path, state in states.items() if state == "bounce-pending"}
        delivered = {path for path, state in states.items() if state == "delivered"}
        waiting = set(states) - refused - delivered
        # This module's assertions are not rewritten: they say themselves what is wrong.
        assert refused == expected.refused, sorted(refused ^ expected.refused)
        assert waiting == expected.waiting, sorted(waiting ^ expected.waiting)
        assert {states[path] for path in waiting} <= expected.waits_as, states

    def assert_nothing_lost(self, delivered: Delivered) -> None:
        """Check that nobody is judged wrongly and no file went but with its mail."""
        states, copies = self.states(), delivered()
        final = {
            path
            for path, state in states.items()
            if state in REFUSED and state != "bounce-pending"
        }
        assert final <= self.never, sorted(final - self.never)
        said = {path for path, state in states.items() if state == "delivered"}
        assert said <= set(copies), sorted(said - set(copies))
        for name in set(self.mail) - self.left:
            gone = set(self.mail[name].recipients)
            assert gone <= set(copies) | final, (name, sorted(gone))
        self.assert_balanced()

    def deliver_the_rest(self, delivered: Delivered) -> Result:
        """Drain until everybody has mail who is to have it; held ones are released.

        Nobody else may have any.
        """
        wanted = self.addressed - self.never
        deadline = time.monotonic() + PATIENCE
        while True:
            result = self.empty_all()
            self.assert_nothing_lost(delivered)
            if wanted <= (found := set(delivered())):
                assert found == wanted, sorted(found - wanted)
                return result
            assert time.monotonic() < deadline, (result, self.states())
