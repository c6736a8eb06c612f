"""Promise P4 with a real Postfix as the primary: its own words when it is broken.

The configuration makes it broken and healthy again, as it does for its operator.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.mta.balancer import Balancer
from tests.support.mta.milter import CONTINUE, TEMPFAIL, Milter
from tests.support.mta.policy_server import Greylist
from tests.support.mta.roles import Primary
from tests.support.mta.rspamd import Rspamd
from tests.support.scenarios.backup import Backup, Delivered, confirm_after
from tests.support.scenarios.primaries import (
    DOMAIN,
    EVERY_TENTH,
    EVERYBODY,
    REMAIN,
    SIXTY,
    SIZES,
    STOPPED,
    Outcome,
)

StartPrimary = Callable[[Mapping[str, str]], Primary]

FEW = 20
"""Transactions that it may take to see that nobody is let in; canaries included."""
ELSEWHERE = "192.0.2.0/24"
"""A network that we are not in."""


@pytest.fixture
def start(primary_postfix: Callable[..., Primary]) -> StartPrimary:
    """Give a function that starts a primary with these parameters."""
    quick = {"smtpd_error_sleep_time": "0"}  # a second for each refusal otherwise
    return lambda parameters: primary_postfix(parameters=quick | dict(parameters))


def delivered_to(primary: Primary) -> Delivered:
    """Return what tells how many copies of its mail each recipient got."""

    def copies() -> Counter[str]:
        primary.wait_queue(0, ("incoming", "active"))
        return Counter(mail.recipient.decode() for mail in primary.received())

    return copies


def prepare(backup: Backup, primary: Primary) -> Delivered:
    """Let the backup drain to it, knowing one of its users."""
    backup.port = primary.port
    backup.know()
    backup.configure(primary={"connections": 2}, breaker={"give_up_after": "2s"})
    return delivered_to(primary)


def heal(primary: Primary, parameters: Mapping[str, str]) -> None:
    """Configure it should be."""
    primary.set(**parameters)
    primary.reload()


@dataclass(frozen=True, slots=True, kw_only=True)
class Illness:
    """What is wrong with its configuration, and how a drain must end then."""

    broken: Mapping[str, str]
    well: Mapping[str, str]
    outcome: Outcome


_NOT_OURS = {"virtual_mailbox_domains": "other.example", "mynetworks": ELSEWHERE}
_OURS = {"virtual_mailbox_domains": "example.org"}
ILLNESSES = {
    "relay-denied": Illness(
        broken=_NOT_OURS | {"smtpd_relay_restrictions": "reject_unauth_destination"},
        well=_OURS,
        outcome=Outcome(exits=(STOPPED,), waiting=EVERYBODY),
    ),
    "relay-denied-for-now": Illness(
        broken=_NOT_OURS | {"smtpd_relay_restrictions": "defer_unauth_destination"},
        well=_OURS,
        outcome=Outcome(exits=(STOPPED, REMAIN), waiting=EVERYBODY),
    ),
    "full-disk": Illness(
        broken={"queue_minfree": "1000000000000000"},
        well={"queue_minfree": "0"},
        outcome=Outcome(exits=(STOPPED,), waiting=EVERYBODY),
    ),
}


@pytest.mark.parametrize("name", ILLNESSES)
def test_a_postfix_that_lets_nobody_in_judges_no_message(
    backup: Backup, start: StartPrimary, name: str
) -> None:
    """Exit 4, all kept; once its configuration is mended, all arrive."""
    illness = ILLNESSES[name]
    primary = start(illness.broken)
    delivered = prepare(backup, primary)
    backup.fill(SIXTY)
    result = backup.empty()
    assert result.code in illness.outcome.exits, result
    backup.assert_outcome(illness.outcome)
    backup.assert_nothing_lost(delivered)
    heal(primary, illness.well)
    assert backup.deliver_the_rest(delivered).code == 0
    assert set(delivered().values()) == {1}


def _users(path: Path, without: frozenset[str]) -> str:
    """Write a table of users; return what virtual_mailbox_maps takes."""
    names = {"known@example.org", "postmaster@example.org"} | EVERYBODY - without
    path.write_text("".join(f"{name} all/\n" for name in sorted(names)), "utf-8")
    path.chmod(0o644)
    return f"texthash:{path}"


def test_a_postfix_that_does_not_know_six_of_sixty(
    backup: Backup, start: StartPrimary
) -> None:
    """54 delivered, exactly those six in bounce-pending, by one drain."""
    primary = start({})
    table = _users(primary.base / "users", EVERY_TENTH)
    heal(primary, {"virtual_mailbox_maps": table})
    delivered = prepare(backup, primary)
    backup.fill(SIXTY, never=EVERY_TENTH)
    assert backup.empty().code == REMAIN
    backup.assert_outcome(Outcome(exits=(REMAIN,), refused=EVERY_TENTH))
    backup.assert_nothing_lost(delivered)
    assert delivered() == Counter(EVERYBODY - EVERY_TENTH)


def test_a_postfix_whose_user_table_is_empty(
    backup: Backup, start: StartPrimary
) -> None:
    """Exit 4 after a few, nobody judged; all arrive when the table is back."""
    primary = start({})
    empty = primary.base / "users"
    empty.write_text("", "utf-8")
    empty.chmod(0o644)
    heal(primary, {"virtual_mailbox_maps": f"texthash:{empty}"})
    delivered = prepare(backup, primary)
    backup.fill(SIXTY)
    assert backup.empty().code == STOPPED
    backup.assert_outcome(Outcome(exits=(STOPPED,), waiting=EVERYBODY))
    assert primary.log().count("NOQUEUE: reject: RCPT") <= FEW
    table = _users(primary.base / "restored", frozenset())
    heal(primary, {"virtual_mailbox_maps": table})
    assert backup.empty().code == 0
    assert delivered() == Counter(EVERYBODY)


def test_a_postfix_that_greylists_by_a_policy_service(
    backup: Backup, start: StartPrimary
) -> None:
    """One drain delivers all: it comes back to each of them."""
    with Greylist() as greylist:
        restriction = f"check_policy_service {greylist.place}"
        primary = start({"smtpd_recipient_restrictions": restriction})
        delivered = prepare(backup, primary)
        backup.fill(SIXTY)
        result = backup.empty()
    assert result.code == 0, result
    assert primary.log().count("Greylisted, please try again later") >= len(SIXTY)
    assert delivered() == Counter(EVERYBODY)
    backup.assert_nothing_lost(delivered)


def test_a_postfix_whose_milter_fails(backup: Backup, start: StartPrimary) -> None:
    """Whatever it says at the dot meanwhile, all are kept, and arrive after."""
    with Milter(verdict=TEMPFAIL) as milter:
        primary = start({"smtpd_milters": milter.place})
        delivered = prepare(backup, primary)
        backup.fill(SIXTY)
        assert backup.empty().code in (STOPPED, REMAIN)
        backup.assert_outcome(Outcome(exits=(), waiting=EVERYBODY))
        backup.assert_nothing_lost(delivered)
        assert "milter-reject" in primary.log()
        milter.verdict = CONTINUE
        assert backup.deliver_the_rest(delivered).code == 0
        assert set(delivered().values()) == {1}


@pytest.mark.parametrize("action", ["tempfail", "reject"])
def test_a_postfix_whose_milter_is_killed_in_the_middle(
    backup: Backup, start: StartPrimary, action: str
) -> None:
    """What it says without the milter judges no message, also after confirmation."""
    primary = start({"milter_default_action": action})
    delivered = prepare(backup, primary)
    backup.configure(**confirm_after("300ms"))
    backup.fill(SIXTY)
    with Milter(lasts=20) as milter:
        heal(primary, {"smtpd_milters": milter.place})
        for _ in range(3):
            assert backup.empty().code in (STOPPED, REMAIN)
            states = set(backup.states().values())
            judged = {"bounced", "quarantined", "bounce-pending", "held"} & states
            assert not judged, backup.recipients()
            backup.assert_nothing_lost(delivered)
    assert 0 < len(delivered()) < len(SIXTY)
    heal(primary, {"smtpd_milters": ""})
    assert backup.deliver_the_rest(delivered).code == 0
    assert delivered() == Counter(EVERYBODY)


def test_a_postfix_whose_rspamd_is_killed_in_the_middle(
    backup: Backup, start: StartPrimary, tmp_path: Path
) -> None:
    """It defers what it cannot scan; all arrives once the filter runs again."""
    if reason := Rspamd.missing_reason():
        pytest.skip(reason)
    primary = start({"milter_default_action": "tempfail"})
    delivered = prepare(backup, primary)
    backup.configure(throttle={"rate": "15/second"}, **confirm_after("300ms"))
    backup.fill(SIXTY)
    with Rspamd(tmp_path) as rspamd:
        heal(primary, {"smtpd_milters": rspamd.place})
        killer = threading.Thread(target=_kill_after, args=(rspamd, primary, 10))
        killer.start()
        assert backup.empty().code in (STOPPED, REMAIN)
        killer.join()
        states = set(backup.states().values())
        assert states <= {"delivered", "pending", "deferred"}, states
        backup.assert_nothing_lost(delivered)
        assert len(delivered()) < len(SIXTY)
        rspamd.start()
        assert backup.deliver_the_rest(delivered).code == 0
    assert delivered() == Counter(EVERYBODY)


def _kill_after(rspamd: Rspamd, primary: Primary, count: int) -> None:
    primary.wait_received(count)
    rspamd.kill()


def test_two_postfix_behind_one_port_of_which_one_has_no_users(
    backup: Backup, start: StartPrimary
) -> None:
    """All mail arrives by the other, in drains alone; nothing is final meanwhile."""
    healthy, bad = start({}), start({})
    for primary, without in ((healthy, frozenset[str]()), (bad, EVERYBODY)):
        table = _users(primary.base / "users", without | {f"known@{DOMAIN}"})
        heal(primary, {"virtual_mailbox_maps": table})
    delivered = delivered_to(healthy)
    with Balancer((bad.port, healthy.port)) as balancer:
        backup.port = balancer.port
        backup.configure(
            primary={"connections": 4},
            breaker={"give_up_after": "2s"},
            **confirm_after("300ms"),
        )
        backup.fill(SIXTY)
        result = backup.deliver_the_rest(delivered)
    assert result.code == 0, result
    assert delivered() == Counter(EVERYBODY)
    assert "bounced" not in backup.states().values()
    assert "User unknown" in bad.log()


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "silent"])
def test_a_postfix_whose_size_limit_is_too_low(
    backup: Backup, start: StartPrimary, *, announced: bool
) -> None:
    """The small ones arrive; the large ones too, when the limit has been raised.

    They are held when the limit is known beforehand, refused at the dot otherwise.
    """
    hidden = "" if announced else "size"
    primary = start(
        {"message_size_limit": "20000", "smtpd_discard_ehlo_keywords": hidden}
    )
    delivered = prepare(backup, primary)
    backup.configure(**confirm_after("3s"))
    backup.fill(SIZES)
    result = backup.empty()
    assert result.code == REMAIN, result
    held = Outcome(exits=(REMAIN,), waiting=EVERY_TENTH, waits_as=frozenset(("held",)))
    refused = Outcome(exits=(REMAIN,), refused=EVERY_TENTH)
    backup.assert_outcome(held if announced else refused)
    heal(primary, {"message_size_limit": "0"})
    assert backup.deliver_the_rest(delivered).code == 0
    assert delivered() == Counter(EVERYBODY)
