"""Telling senders: evidence gathered, the gate asked, reports made and sent.

What is decided is pure (drainer.policy.bounce_gate), and what is promised lies in the
ledger (drainer.ledger.bounces); here is who asks and who does it.
"""

from datetime import timedelta

from drainer.bounces.bouncing import Bouncer
from drainer.bounces.reporting import Posting
from drainer.evidence import Settings
from drainer.policy.bounce_gate import Own
from drainer.policy.bounce_limits import Limits
from drainer.policy.facts import Trust
from drainer.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Bouncing:
    """What the bounce gate goes by."""

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
    """Return what asks the bounce gate; it remembers nothing yet."""
    return Bouncer(
        trust=bouncing.trust,
        own=bouncing.own,
        limits=bouncing.limits,
        patience=bouncing.patience,
    )
