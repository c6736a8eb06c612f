"""Settings to notify senders: evidence, bounce rules, reports."""

from datetime import timedelta

from msgspec import Struct

from drainer.bounce.decider import BounceDecider
from drainer.bounce.evidence.request import EvidenceSettings
from drainer.bounce.reports import DsnSettings


class BounceSettings(Struct, frozen=True, kw_only=True):
    """What gathers evidence, decides, and sends."""

    evidence: EvidenceSettings
    decider: BounceDecider
    #: For messages with slow DNS, together, in one run.
    dns_budget: timedelta
    posting: DsnSettings
