"""From a Config to the objects that do the work."""

from drainer.wiring.hook import make_hook, make_server
from drainer.wiring.hosts import (
    make_probe,
    make_route,
    split_host,
)
from drainer.wiring.orders import (
    make_admission,
    make_orders,
)
from drainer.wiring.places import (
    LedgerURL,
    fresh_rehearsal,
    ledger_url,
    lock_folder,
    quarantine_folder,
)
from drainer.wiring.reports import (
    make_bouncing,
    make_evidence,
    make_own,
    make_trust,
    make_via,
)
from drainer.wiring.rules import (
    make_rules,
    read_rules,
)
from drainer.wiring.sources import (
    make_sources,
    with_domains,
)
from drainer.wiring.watch import (
    Plan,
    make_plan,
)

__all__ = [
    "LedgerURL",
    "Plan",
    "fresh_rehearsal",
    "ledger_url",
    "lock_folder",
    "make_admission",
    "make_bouncing",
    "make_evidence",
    "make_hook",
    "make_orders",
    "make_own",
    "make_plan",
    "make_probe",
    "make_route",
    "make_rules",
    "make_server",
    "make_sources",
    "make_trust",
    "make_via",
    "quarantine_folder",
    "read_rules",
    "split_host",
    "with_domains",
]
