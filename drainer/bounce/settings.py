"""Telling senders: evidence gathered, the bounce rules asked, reports made and sent.

What is decided is pure (drainer.policy.bounce.decision), and what is promised lies in
the ledger (drainer.ledger.reports.evidence); here is who asks and who does it.
"""

from datetime import timedelta

from drainer.bounce.decider import Bouncer
from drainer.bounce.evidence.settings import Settings
from drainer.bounce.reports import Posting
from drainer.policy.bounce.decision import Own
from drainer.policy.bounce.facts import Trust
from drainer.policy.bounce.limits import Limits
from drainer.runtime.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Bouncing:
    """What the bounce rules goes by."""

    settings: Settings
    trust: Trust
    own: Own
    limits: Limits
    patience: timedelta
    #: For messages whose DNS is slow, together, in one run.
    dns_budget: timedelta
    #: After which senders are told that their mail waits; None = never.
    delays: timedelta | None
    posting: Posting


def make_bouncer(bouncing: Bouncing) -> Bouncer:
    """Return what asks the bounce rules; it remembers nothing yet."""
    return Bouncer(
        trust=bouncing.trust,
        own=bouncing.own,
        limits=bouncing.limits,
        patience=bouncing.patience,
    )
