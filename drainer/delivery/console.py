"""What drainer prints while a run starts and ends, for a terminal or a journal."""

import logging
from collections.abc import Sequence

from drainer.ledger.reserve import DELIVERED, Reserve
from drainer.sources.protocol import HeldCount, ReleasedCount

SHOWN_DOMAINS = 10
SHOWN_RECORDS = 20

_log = logging.getLogger(__name__)


def print_domains(domains: Sequence[str]) -> None:
    """Print which domains' mail is sent, as a running server named them."""
    named = [domain for domain in domains if not domain.startswith(".")]
    names = ", ".join(named[:SHOWN_DOMAINS])
    more = f" and {len(named) - SHOWN_DOMAINS} more" if named[SHOWN_DOMAINS:] else ""
    _log.info(f"drainer sends the mail for its relay_domains: {names}{more}")


def print_claims(
    elsewhere: Sequence[tuple[str, str]],
    replaced: Sequence[tuple[str, str]],
) -> None:
    """Warn of sources that other drains may not see as ours, or that were theirs."""
    for url, place in elsewhere:
        _log.warning(
            f"{url} cannot be written, so the marker of this ledger is {place}: drains"
            " on other hosts, or of other users, do not see it"
        )
    for url, former in replaced:
        _log.warning(
            f"{url} is taken over from {former}: what that ledger delivered may be"
            " delivered again"
        )


def print_held(taken: HeldCount) -> None:
    """Print what was taken on hold from running servers, and what that risks."""
    if taken.messages:
        _log.info(
            f"{taken.messages} messages taken on hold; the rest returns to Postfix"
        )
    if taken.left:
        _log.warning(
            f"{taken.left} messages cannot be replayed; Postfix keeps them:"
            " `drainer inspect` says why"
        )
    if taken.expiring:
        _log.warning(
            f"{taken.expiring} of them have outlived maximal_queue_lifetime: Postfix"
            " bounces what this drain does not deliver, once it is returned and the"
            " next attempt fails; raise that limit (postconf -e, postfix reload)"
        )


def print_released(
    source: str, returned: ReleasedCount, *, would: bool = False
) -> None:
    """Print what was returned to a server, and what was not, or ``would`` be."""
    is_exim = source.startswith("exim:")
    if would or returned.removed or returned.released:
        _log.info(
            f"{source}: {returned.removed} finished messages{' would be' * would}"
            f" removed, {returned.released} returned to"
            f" {'Exim' if is_exim else 'Postfix'}"
        )
    if returned.expiring:
        _log.warning(
            f"{returned.expiring} of them have outlived maximal_queue_lifetime: Postfix"
            " bounces them if its next attempt fails; raise it, or `postsuper -h` them"
        )
    if returned.unlike:
        _log.warning(
            f"{returned.unlike} messages only start like messages of the ledger, or"
            " several look alike: drainer left them alone; compare them yourself"
        )
    if returned.waiting and is_exim:
        _log.warning(
            f"{returned.waiting} {'would be' if would else 'are'} frozen, because Exim"
            " could send them twice or bounce them: the next drain of a stopped Exim"
            " continues with them; `exim -Mt ID` thaws one"
        )
    elif returned.waiting:
        _log.warning(
            f"{returned.waiting} stay on hold, because Postfix could bounce them:"
            f" `drainer why ID` explains each; `drainer spool give-back --all {source}`"
            " returns them to Postfix"
        )


def print_reserve(reserve: Reserve) -> None:
    """Name the recipients whose outcome only the reserve has."""
    if not reserve.records:
        return
    _log.warning(
        f"the ledger does not know the outcome of {len(reserve.records)} recipients"
    )
    for record in reserve.records[:SHOWN_RECORDS]:
        is_delivered = record.outcome == DELIVERED
        meaning = "delivered" if is_delivered else "unknown, perhaps delivered"
        _log.warning(
            f"{record.native_id} to {record.forward_path}: {meaning}: {record.reply}"
        )
    if len(reserve.records) > SHOWN_RECORDS:
        _log.warning(f"and {len(reserve.records) - SHOWN_RECORDS} more")
    if reserve.failure:
        _log.warning(f"the reserve {reserve.path} cannot be written: {reserve.failure}")
    else:
        _log.warning(
            f"they are in the reserve {reserve.path}; the next run on this host"
            " settles them from there"
        )
