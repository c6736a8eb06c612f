"""Sick primaries, a scenario each: relay denied, an empty user table, greylisting, ...

Data for the acceptance tests and the bench; tests/support/scenarios/primaries.py has
what it is made of.
"""

from typing import Final

from tests.support.scenarios.primaries import (
    BLOCKED,
    DOMAIN,
    EVERY_TENTH,
    EVERYBODY,
    GREY,
    NAME_DISLIKED,
    RELAY,
    REMAIN,
    SIXTY,
    SIZES,
    STOPPED,
    UNKNOWN,
    Mail,
    Outcome,
    Scenario,
    accepted_for,
    at_second_try,
    by_turns,
    everybody,
    in_phase,
    letter,
    letters,
    only,
    refusing,
    sender_of,
    user,
    users_only,
)
from tests.support.smtp_peer.script import (
    BodyStep,
    Delay,
    Drop,
    EarlyReply,
    ReplyThenDrop,
    Script,
    Step,
    View,
)

TWELVE: Final = letters(12)
FIRST_TWELVE: Final = frozenset(user(n) for n in range(12))
DOMAINS: Final = (DOMAIN, "example.net", "example.com")
DEAD: Final = frozenset(user(n, "example.com") for n in range(2, 60, 3))
SPAM: Final = frozenset(user(n) for n in range(60) if n % 10)
CRAFTED: Final = "spammer@crafted.example"
VICTIM: Final = user(1000)
#: Of the messages to several: unknown, picky about content, and content with it.
STRANGERS: Final = frozenset(user(n) for n in (100, 110))
PICKY: Final = frozenset(user(n) for n in (101, 111))
PLAIN: Final = user(102)
MIDDLE: Final = frozenset(user(n) for n in (201, 211, 221))


# ---- answers


def _exempt(view: View) -> bool:
    """Tell whether it is what many servers exempt from every restriction."""
    return view.path.startswith("postmaster@") or not sender_of(view)


def _spam(view: View) -> Step:
    paths = accepted_for(view)
    good = EVERYBODY - SPAM
    return "250 2.0.0 taken" if good & set(paths) else "554 5.7.1 Rejected as spam"


def _one_for_all(view: View) -> Step:
    """Refuse for all at the dot what one of them does not want."""
    if PICKY & set(accepted_for(view)):
        return "554 5.6.0 Content refused"
    return "250 2.0.0 taken"


def _closing_in_group() -> Script:
    """Close once in the middle of each message of three recipients."""
    closed: set[str] = set()

    def rcpt(view: View) -> Step:
        middle = view.path in MIDDLE and view.path not in closed
        closed.update({view.path} & MIDDLE)
        shutting_down = ReplyThenDrop("421 4.3.2 Service shutting down")
        return shutting_down if middle else users_only(view)

    return Script(rcpt=rcpt)


def _drop_once() -> Script:
    """Take a message, and be gone before the reply, once for some."""
    dropped: set[str] = set()

    def dot(view: View) -> Step:
        lost = (EVERY_TENTH - dropped) & set(accepted_for(view))
        dropped.update(lost)
        return Drop() if lost else "250 2.0.0 taken"

    return Script(rcpt=users_only, dot=dot)


def _too_big(view: View) -> BodyStep | None:
    if EVERY_TENTH & set(accepted_for(view)):
        return EarlyReply(50_000, "552 5.3.4 Message too big for system", True)  # noqa: FBT003
    return None


# ---- the scenarios

_ALL_WAIT: Final = Outcome(exits=(STOPPED,), waiting=EVERYBODY)
_ALL_ARRIVE: Final = Outcome(exits=(0,))
_TENTH_REFUSED: Final = Outcome(exits=(REMAIN,), refused=EVERY_TENTH)


def _refused_us(
    id_: str, words: str, script: Script, *, blind: bool = False
) -> Scenario:
    """Return a primary that lets nobody of sixty in."""
    return Scenario(
        id=id_,
        words=words,
        mail=SIXTY,
        broken=lambda: script,
        known=_ALL_WAIT,
        blind=_ALL_WAIT if blind else None,
    )


def _unknown_among(id_: str, mail: tuple[Mail, ...], who: frozenset[str]) -> Scenario:
    """Return a healthy primary that does not know some of the recipients."""

    def know_users() -> Script:
        return Script(rcpt=refusing(UNKNOWN, only(who)))

    outcome = Outcome(exits=(REMAIN,), refused=who)
    return Scenario(
        id=id_,
        words=f"well, and {len(who)} of {len(mail)} recipients do not exist",
        mail=mail,
        broken=know_users,
        well=know_users,
        known=outcome,
        blind=outcome,
        never=who,
        connections=5,
    )


def few_unknown(count: int) -> Scenario:
    """Return a healthy primary that does not know 3 % of so many recipients."""
    unknown = frozenset(user(17 + n * 100 // 3) for n in range(count * 3 // 100))
    return _unknown_among("few-unknown", letters(count), unknown)


REFUSING_US: Final = (
    _refused_us(
        "relay-denied",
        "denies relay from the first message",
        Script(rcpt=refusing(RELAY, everybody)),
        blind=True,
    ),
    _refused_us(
        "empty-user-table",
        "its user table is empty: 550 5.1.1 for everybody",
        Script(rcpt=refusing(UNKNOWN, everybody)),
        blind=True,
    ),
    _refused_us(
        "postmaster-exempt",
        "denies relay, but exempts postmaster and `<>` from its restrictions",
        Script(rcpt=refusing(RELAY, lambda view: not _exempt(view))),
        blind=True,
    ),
    _refused_us(
        "blocklisted",
        "a blocklist that it uses lists our address",
        Script(rcpt=refusing(BLOCKED, everybody)),
    ),
    _refused_us(
        "name-disliked",
        "dislikes our name at EHLO",
        Script(ehlo=NAME_DISLIKED, helo=NAME_DISLIKED),
    ),
    _refused_us(
        "login-demanded",
        "demands TLS and a login at MAIL",
        Script(mail="530 5.7.0 Must issue a STARTTLS command first"),
    ),
)

JUDGING_MAIL: Final = (
    Scenario(
        id="dead-domain",
        words="of its three domains one has no users",
        mail=letters(60, DOMAINS),
        broken=lambda: Script(
            rcpt=refusing(UNKNOWN, lambda view: view.path.endswith("@example.com"))
        ),
        known=Outcome(exits=(STOPPED,), waiting=DEAD),
        blind=Outcome(exits=(STOPPED,), waiting=DEAD),
        domains=DOMAINS,
    ),
    Scenario(
        id="mostly-spam",
        words="refuses 90 % as spam, rightly",
        mail=SIXTY,
        broken=lambda: Script(rcpt=users_only, dot=_spam),
        well=lambda: Script(rcpt=users_only, dot=_spam),
        known=Outcome(exits=(REMAIN,), refused=SPAM),
        blind=Outcome(exits=(REMAIN,), refused=SPAM),
        never=SPAM,
    ),
    Scenario(
        id="twelve-refused",
        words="refuses a queue of 12, with a bare 550",
        mail=TWELVE,
        broken=lambda: Script(
            rcpt="550 Requested action not taken: mailbox unavailable"
        ),
        known=Outcome(exits=(STOPPED,), waiting=FIRST_TWELVE),
        blind=Outcome(exits=(STOPPED,), waiting=FIRST_TWELVE),
    ),
    Scenario(
        id="twelve-unknown",
        words="well, and none of 12 recipients exists",
        mail=TWELVE,
        broken=lambda: Script(rcpt=refusing(UNKNOWN, only(FIRST_TWELVE))),
        well=lambda: Script(rcpt=refusing(UNKNOWN, only(FIRST_TWELVE))),
        known=Outcome(exits=(REMAIN,), refused=FIRST_TWELVE),
        blind=Outcome(exits=(STOPPED,), waiting=FIRST_TWELVE),
        never=FIRST_TWELVE,
    ),
    Scenario(
        id="one-crafted",
        words="one message of 61 is worded to look as if it refused us",
        mail=(
            *SIXTY,
            Mail(sender=CRAFTED, recipients=(VICTIM,)),
        ),
        broken=lambda: Script(
            rcpt=refusing(BLOCKED, lambda view: sender_of(view) == CRAFTED)
        ),
        known=Outcome(
            exits=(REMAIN,),
            waiting=frozenset((VICTIM,)),
            waits_as=frozenset(("held", "deferred")),
        ),
        blind=None,
    ),
    Scenario(
        id="refused-at-dot",
        words="refuses content at the dot for all, since one of several dislikes it",
        mail=(
            *SIXTY,
            letter(100, user(100), user(101), PLAIN),
            letter(110, user(110), user(111)),
        ),
        broken=lambda: Script(
            rcpt=refusing(UNKNOWN, only(STRANGERS)), dot=_one_for_all
        ),
        well=lambda: Script(rcpt=refusing(UNKNOWN, only(STRANGERS))),
        known=Outcome(exits=(REMAIN,), refused=STRANGERS | PICKY),
        blind=None,
        never=STRANGERS,
        confirm_after="3s",
    ),
    Scenario(
        id="refused-and-354",
        words="says 354 although it refused every recipient",
        mail=SIXTY,
        broken=lambda: Script(
            rcpt=refusing(UNKNOWN, only(EVERY_TENTH)), data="354 go ahead"
        ),
        well=lambda: Script(rcpt=refusing(UNKNOWN, only(EVERY_TENTH))),
        known=_TENTH_REFUSED,
        blind=None,
        never=EVERY_TENTH,
    ),
    Scenario(
        id="refused-in-body",
        words="refuses large messages while they are sent, and hangs up",
        mail=SIZES,
        broken=lambda: Script(rcpt=users_only, body=_too_big),
        well=lambda: Script(rcpt=users_only, body=_too_big),
        known=_TENTH_REFUSED,
        blind=None,
        never=EVERY_TENTH,
    ),
    _unknown_among("six-unknown", SIXTY, EVERY_TENTH),
)

UNSTEADY: Final = (
    Scenario(
        id="greylisting",
        words="greylists everybody",
        mail=SIXTY,
        broken=lambda: at_second_try(f"450 4.2.0 <{{}}>: {GREY}"),
        known=_ALL_ARRIVE,
        blind=_ALL_ARRIVE,
    ),
    Scenario(
        id="greylisting-550",
        words="greylists everybody, with a 550",
        mail=SIXTY,
        broken=lambda: at_second_try(f"550 5.7.1 <{{}}>: {GREY}"),
        known=_ALL_ARRIVE,
        blind=None,
    ),
    Scenario(
        id="closing-in-group",
        words="closes with 421 between the recipients of a message",
        mail=(
            *SIXTY,
            *(letter(n, user(n), user(n + 1), user(n + 2)) for n in (200, 210, 220)),
        ),
        broken=_closing_in_group,
        known=_ALL_ARRIVE,
        blind=None,
    ),
    Scenario(
        id="flapping",
        words="goes up and down every half second",
        mail=SIXTY,
        broken=lambda: Script(
            banner=in_phase(
                0.5, "220 peer.example ESMTP", ReplyThenDrop("421 4.3.2 Not now")
            ),
            mail=in_phase(0.5, "250 2.1.0 ok", ReplyThenDrop("421 4.3.2 Not now")),
            rcpt=users_only,
            dot=Delay(0.02, "250 2.0.0 taken"),
        ),
        known=_ALL_ARRIVE,
        blind=None,
        give_up_after="10s",
    ),
    Scenario(
        id="flapping-users",
        words="its user table comes and goes, with every ten recipients",
        mail=SIXTY,
        broken=lambda: by_turns(lambda n: n // 10 % 2 == 1),
        known=Outcome(exits=(0, STOPPED, REMAIN)),
        blind=None,
        fickle=True,
        confirm_after="3s",
    ),
    Scenario(
        id="users-come-back",
        words="its user table comes back after eight recipients",
        mail=SIXTY,
        broken=lambda: by_turns(lambda n: n >= 8),
        known=Outcome(exits=(0, STOPPED, REMAIN)),
        blind=Outcome(exits=(0, STOPPED, REMAIN)),
        fickle=True,
        confirm_after="3s",
    ),
    Scenario(
        id="gone-at-dot",
        words="hangs up instead of the reply to the final dot, for 6 of 60",
        mail=SIXTY,
        broken=_drop_once,
        known=Outcome(exits=(0, REMAIN)),
        blind=None,
        fickle=True,
        doubtful=EVERY_TENTH,
    ),
)

SCENARIOS: Final = (*REFUSING_US, *JUDGING_MAIL, *UNSTEADY)
