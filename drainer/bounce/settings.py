"""Telling senders: evidence gathered, the bounce rules asked, reports made and sent.

What is decided is pure (drainer.policy.bounce.decision), and what is promised lies in
the ledger (drainer.ledger.reports.evidence); here is who asks and who does it.
"""

from datetime import timedelta

from drainer.bounce.decider import BounceDecider
from drainer.bounce.evidence.request import EvidenceSettings
from drainer.bounce.reports import DsnSettings
from drainer.policy.bounce.decision import OwnIdentity
from drainer.policy.bounce.facts import TrustSettings
from drainer.policy.bounce.limits import ReportLimits
from drainer.runtime.values import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class BounceSettings:
    """What the bounce rules goes by."""

    settings: EvidenceSettings
    trust: TrustSettings
    own: OwnIdentity
    limits: ReportLimits
    patience: timedelta
    #: For messages whose DNS is slow, together, in one run.
    dns_budget: timedelta
    posting: DsnSettings


def build_decider(bouncing: BounceSettings) -> BounceDecider:
    """Return what asks the bounce rules; it remembers nothing yet."""
    return BounceDecider(
        trust=bouncing.trust,
        own=bouncing.own,
        limits=bouncing.limits,
        patience=bouncing.patience,
    )
