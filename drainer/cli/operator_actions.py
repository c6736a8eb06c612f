"""The operator's actions: hold, release, requeue, discard; and how each is run."""

from collections.abc import Callable, Iterable

from msgspec.structs import replace

from drainer.cli import COMMANDS
from drainer.cli.action_options import (
    OperatorRequest,
    as_verb,
    select_messages,
    show_touched,
)
from drainer.cli.filters import options_as
from drainer.cli.output import print_json, say, stdout
from drainer.cli.replay import ReplayWindow, replay, window_of
from drainer.config import Config
from drainer.config.build.paths import ledger_url
from drainer.ledger.filters import Filters
from drainer.ledger.operator_actions import VERBS, OperatorAction, apply_verb, touchable
from drainer.ledger.reader import LedgerReader
from drainer.ledger.records import Row
from drainer.mail.message import PROBLEMS
from drainer.policy.recipient.state import Event, State


@options_as("window", window_of)
@as_verb
def _requeue(asked: OperatorRequest, *, window: ReplayWindow) -> None:
    """Requeue, which can name delivered mail as well."""
    if window:
        replay(asked, window)
    else:
        act(VERBS["requeue"], asked)


def verb_command(
    verb: OperatorAction,
    afterwards: Callable[[Config], None] | None = None,
    *,
    in_quarantine: bool = False,
) -> Callable[..., None]:
    """Return the command of an action, perhaps only for what the quarantine lists.

    ``afterwards`` is called after the ledger has recorded the action.
    """

    @as_verb
    def command(asked: OperatorRequest) -> None:
        meant = replace(asked.filters, in_quarantine=in_quarantine)
        if act(verb, replace(asked, filters=meant)) and afterwards is not None:
            afterwards(asked.config)

    return command


def act(verb: OperatorAction, asked: OperatorRequest) -> bool:
    """Apply an action to recipients; False for a dry run."""
    url = ledger_url(asked.config)
    with LedgerReader(url) as report:
        meant = select_messages(report, asked.ids, asked.filters, verb.name)
        chosen = _limit_to_verb(verb, meant)
        stays = [_stays_held(verb, row) for row in _rows(report, chosen)]
        count = len(stays)
        if asked.dry_run:
            if not asked.as_json:
                show_touched(_rows(report, chosen))
            _say_count(count, f"would be {verb.done}", as_json=asked.as_json)
            return False
    asked.insist(verb.name, count)
    changed = apply_verb(url, verb, chosen, asked.reason) if count else 0
    _say_done(verb, changed, count, as_json=asked.as_json)
    if changed and any(stays):
        say(
            f"{sum(stays)} of them have a problem that no release overrules: the"
            " next drain holds them again, unless the spool has changed; see"
            " `drainer why`"
        )
    return True


def _stays_held(verb: OperatorAction, row: Row) -> bool:
    """Return whether a release changes nothing, because the problem remains."""
    problem = PROBLEMS.get(row["rule"].removeprefix("local-"))
    is_release = verb.event is Event.OPERATOR_RELEASE
    return is_release and problem is not None and not problem[1]


def _limit_to_verb(verb: OperatorAction, meant: Filters) -> Filters:
    """Return the recipients that an action may change; without states, none."""
    states = touchable(verb, meant.states or [s.value for s in State])
    return replace(meant, states=states)


def _rows(report: LedgerReader, chosen: Filters) -> Iterable[Row]:
    return report.recipients(chosen) if chosen.states else ()


def _say_done(verb: OperatorAction, changed: int, count: int, *, as_json: bool) -> None:
    if not count:
        say(f"nothing that matches can be {verb.done}; `drainer list` shows states")
    _say_count(changed, verb.done, as_json=as_json)
    if changed != count:
        say(f"{count - changed} had changed state in the meantime")


def _say_count(count: int, done: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"recipients": count, "done": done})
    else:
        stdout().print(f"{count} recipients {done}")


def _document(name: str, command: Callable[..., None]) -> Callable[..., None]:
    command.__doc__ = (
        f"{COMMANDS[name].help}\n\nExample: drainer {name} --domain example.com"
        " --reason 'moved away'"
    )
    return command


hold = _document("hold", verb_command(VERBS["hold"]))
release = _document("release", verb_command(VERBS["release"]))
requeue = _document("requeue", _requeue)
discard = _document("discard", verb_command(VERBS["discard"]))
