"""Settings to notify senders: evidence, bounce rules, reports.

The decisions are pure (drainer.policy.bounce.decision), and the queued reports are in
the ledger (drainer.ledger.reports.evidence). This module says which parts apply the
rules.
"""

from datetime import timedelta

from msgspec import Struct

from drainer.bounce.decider import BounceDecider
from drainer.bounce.evidence.request import EvidenceSettings
from drainer.bounce.reports import DsnSettings
from drainer.policy.bounce.decision import OwnIdentity
from drainer.policy.bounce.facts import TrustSettings
from drainer.policy.bounce.limits import ReportLimits


class BounceSettings(Struct, frozen=True, kw_only=True):
    """The settings of the bounce rules."""

    settings: EvidenceSettings
    trust: TrustSettings
    own: OwnIdentity
    limits: ReportLimits
    patience: timedelta
    #: For messages with slow DNS, together, in one run.
    dns_budget: timedelta
    posting: DsnSettings


def build_decider(bouncing: BounceSettings) -> BounceDecider:
    """Return a decider that applies the bounce rules; it has no history yet."""
    return BounceDecider(
        trust=bouncing.trust,
        own=bouncing.own,
        limits=bouncing.limits,
        patience=bouncing.patience,
    )
