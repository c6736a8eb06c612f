"""`inspect` lists the messages of a spool; `plan` prints what a drain would do."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from drainer.cli.filters import with_choice, with_redirect
from drainer.cli.options import (
    ConfigOption,
    JsonOption,
    LedgerOption,
    SourcesArgument,
    ToOption,
    load,
)
from drainer.cli.output import (
    clean,
    print_json,
    stdout,
    warn_of_skipped,
    warn_of_untaken,
)
from drainer.cli.scan_forecast import ScanForecast
from drainer.cli.section_options import (
    Sections,
    merge,
    refuse_without_lists,
    with_census,
    with_primary,
)
from drainer.cli.selection import (
    BATCH,
    RecipientStates,
    SourceList,
    open_ledger,
    with_states,
)
from drainer.cli.status import first_to_expire, show_expiry
from drainer.cli.table import Table
from drainer.cli.times import format_time
from drainer.config import Config
from drainer.config.build.paths import ledger_url, lock_folder
from drainer.config.build.recipient_lists import census_before_drain, open_directory
from drainer.config.build.routes import route_name
from drainer.config.build.server_routes import with_server_routes
from drainer.config.build.spools import make_sources, with_domains
from drainer.config.route_section import route_configs
from drainer.delivery.build import make_admission
from drainer.delivery.census.census import RecipientCensus
from drainer.delivery.holds import SpoolHolds
from drainer.delivery.mx_hosts import with_mx_hosts
from drainer.mail.envelope import Recipient, domain_of
from drainer.mail.message import Problem
from drainer.mail.reply import printable
from drainer.policy.admission.admit import Admission
from drainer.policy.admission.selection import Choice, Selection
from drainer.policy.pacing.forecast import least_seconds
from drainer.policy.pacing.rate import parse_rate
from drainer.policy.recipient.delivery import ScannedMessage
from drainer.policy.recipient.mapping import AddressMapping
from drainer.policy.recipient.state import CLAIMABLE, FINAL, State
from drainer.runtime.units import describe_duration, format_size

_SHOWN_PROBLEMS = 4


@with_choice
def inspect(
    sources: SourcesArgument,
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    choice: Choice,
    json_: JsonOption = False,
) -> None:
    """List the messages of a spool: read-only, needs no primary and no ledger.

    The list names the problem of a message that drainer cannot replay. If there is a
    ledger, it says what the ledger knows of each message.

    Example: drainer inspect postfix:/mnt/backup/spool/postfix --json
    """
    config = load(path, ledger=ledger)
    opened = make_sources(config, sources, choice.selection.queues, listing=True)
    SpoolHolds(opened, lock_folder(ledger_url(config))).peek()
    warn_of_skipped(opened)
    warn_of_untaken(opened)
    look = SourceList(choice, datetime.now(UTC) - config.retry.lifetime, digest=json_)
    found = look.at(opened, Admission())
    pages = Table(
        "id", "native id", "queue", "arrived", "size", "sender", "recipients",
        spare=("size", "arrived", "id", "queue"),
    )  # fmt: skip
    finished = 0
    with open_ledger(config) as report:
        for scanned, states in with_states(found, report):
            if json_:
                print_json(facts_of(scanned) | {"states": states})
                continue
            finished += bool(states) and FINAL.issuperset(states.values())
            _add_row(pages, scanned, states)
    if json_:
        return
    pages.end()
    known = f", {finished} of them finished in the ledger" if finished else ""
    stdout().print(f"{pages.count} messages{known}")


def _add_row(pages: Table, scanned: ScannedMessage, states: RecipientStates) -> None:
    message = scanned.spooled.message
    recipients = [
        f"{r.forward_path} ({states[r.forward_path]})"
        if r.forward_path in states
        else r.forward_path
        for r in message.envelope.recipients
    ]
    words = ", ".join(recipients[:3]) + (" ..." if len(recipients) > 3 else "")  # noqa: PLR2004
    size = scanned.facts.size_bytes if scanned.facts else message.size_bytes
    flags = f" ({', '.join(message.flags)})" if message.flags else ""
    problems = list(dict.fromkeys(scanned.problems))[:_SHOWN_PROBLEMS]
    pages.add(
        message.id[:12],
        clean(message.native_id, 1000),
        clean(f"{message.queue}{flags}"),
        format_time(message.arrived),
        format_size(size),
        clean(message.envelope.reverse_path or "<>", 1000),
        clean(words, 3000),
        note="; ".join(f"[red]{clean(each, 300)}[/]" for each in problems if each),
    )


def facts_of(scanned: ScannedMessage) -> dict[str, Any]:
    """Return a message as JSON for scripts."""
    message, envelope = scanned.spooled.message, scanned.spooled.message.envelope
    facts, client = scanned.facts, message.client
    return {
        "id": message.id,
        "source": message.source,
        "native_id": message.native_id,
        "queue": message.queue,
        "arrived": message.arrived.isoformat(),
        "reverse_path": envelope.reverse_path,
        "recipients": [
            {
                "forward_path": r.forward_path,
                "orcpt": r.orcpt or None,
                "notify": list(r.notify),
            }
            | (
                {"problem": _problem_of(problem)}
                if scanned.problem is None and problem
                else {}
            )
            for r, problem in zip(envelope.recipients, scanned.problems, strict=False)
        ],
        "done": list(envelope.done),
        "size": facts.size_bytes if facts else message.size_bytes,
        "sha256": facts.sha256 if facts else None,
        "body": envelope.body or None,
        "smtputf8": envelope.smtputf8,
        "envid": envelope.envid or None,
        "ret": envelope.ret or None,
        "client": {
            "address": client.address or None,
            "name": client.name or None,
            "helo": client.helo or None,
        },
        "login": message.login or None,
        "flags": list(message.flags),
        "problem": _problem_of(scanned.problem),
    }


def _problem_of(problem: Problem | None) -> dict[str, str] | None:
    if problem is None:
        return None
    return {"code": problem.code, "detail": printable(problem.detail)}


@dataclass(slots=True)
class Forecast:
    """What a drain of these sources would find."""

    messages: int = 0
    #: Messages with a recipient to try.
    sendable: int = 0
    recipients: int = 0
    bytes: int = 0
    held: Counter[str] = field(default_factory=Counter)
    domains: Counter[str] = field(default_factory=Counter)
    #: Messages by route; one with recipients on two routes counts for both.
    routes: Counter[str] = field(default_factory=Counter)
    oldest: datetime | None = None
    expiring: int = 0
    #: Recipients of which the ledger knows more than the spool, by state.
    known: Counter[State] = field(default_factory=Counter)
    #: Messages with nothing left to try.
    finished: int = 0
    redirect: AddressMapping = field(default_factory=AddressMapping)

    def add(
        self,
        scanned: ScannedMessage,
        states: RecipientStates,
        selection: Selection,
        lifetime_end: datetime,
    ) -> tuple[str, ...]:
        """Count one message and its selected recipients, by what the ledger knows.

        Return the addresses that a drain would try.
        """
        message = scanned.spooled.message
        if states and FINAL.issuperset(states.values()):
            self.finished += 1
            self.known.update(states.values())
            return ()
        self.messages += 1
        self.oldest = min(self.oldest or message.arrived, message.arrived)
        known = message.envelope.recipients or (Recipient(forward_path=""),)
        chosen = [
            (recipient, problem, route)
            for recipient, problem, route in zip(
                known, scanned.problems, scanned.routes, strict=False
            )
            if selection.takes_recipient(recipient.forward_path)
        ]
        self.held.update(problem.code for _, problem, _ in chosen if problem)
        later = {
            path: state for path, state in states.items() if state not in CLAIMABLE
        }
        sendable = [(r, route) for r, problem, route in chosen if not problem]
        pending = [r for r, _ in sendable if r.forward_path not in later]
        self.known.update(
            later[r.forward_path] for r, _ in sendable if r.forward_path in later
        )
        self.routes.update({way for r, way in sendable if r.forward_path not in later})
        if not pending:
            return ()
        self.sendable += 1
        self.recipients += len(pending)
        self.bytes += scanned.facts.size_bytes if scanned.facts else 0
        self.expiring += message.arrived < lifetime_end
        targets = tuple(self.redirect.target(r.forward_path) for r in pending)
        self.domains.update(map(domain_of, targets))
        return targets


@with_census
@with_primary
@with_redirect
@with_choice
def plan(
    sources: SourcesArgument,
    path: ConfigOption = None,
    to: ToOption = "",
    ledger: LedgerOption = "",
    rate: Annotated[str, typer.Option(help="As for `drain`.")] = "",
    *,
    scan: Annotated[
        bool,
        typer.Option("--scan", help="Ask the scanners of [scan] what they would hold."),
    ] = False,
    choice: Choice,
    redirect: AddressMapping,
    primary: Sections,
    recipients: Sections,
    json_: JsonOption = False,
) -> None:
    """Print what `drain` would do: counts, sizes, ages, duration, held messages.

    What is finished in the ledger, or waits there, does not count. It also prints which
    recipient expires first, if the ledger knows it.

    It sends nothing and writes nothing. With --scan, the scanners get every content.

    Example: drainer plan maildir:/var/mail/backup
    """
    sections = merge(primary, recipients, {"throttle": {"rate": rate} if rate else {}})
    config = load(path, to=to, ledger=ledger, sections=sections, acts=scan)
    refuse_without_lists(config, recipients)
    scans = ScanForecast(config, choice) if scan else None
    chosen = (choice, redirect)
    print_plan(config, sources, chosen, as_json=json_, explicit=bool(rate), scans=scans)


def print_plan(
    config: Config,
    sources: list[str],
    chosen: tuple[Choice, AddressMapping],
    *,
    as_json: bool,
    explicit: bool,
    scans: ScanForecast | None = None,
) -> None:
    """Print what a drain would do with this configuration.

    An ``explicit`` rate skips the ramp. ``scans`` also asks the scanners.
    """
    choice, redirect = chosen
    opened = make_sources(config, sources, choice.selection.queues)
    SpoolHolds(opened, lock_folder(ledger_url(config))).peek()
    warn_of_skipped(opened)
    warn_of_untaken(opened)
    config = with_server_routes(config, opened)
    config, no_route, unanswered, _ = with_mx_hosts(with_domains(config, opened))
    rules = make_admission(config, redirect, no_route, unanswered)
    forecast = Forecast(redirect=redirect)
    end = datetime.now(UTC) - config.retry.lifetime
    found = SourceList(choice, end).at(opened, rules)
    if spec := census_before_drain(config):
        directory = open_directory(spec)
        found = RecipientCensus(directory, redirect).mark_unknown(found, BATCH)
    with open_ledger(config) as report:
        for scanned, states in with_states(found, report):
            pending = forecast.add(scanned, states, choice.selection, end)
            if scans is not None:
                scans.add(scanned, pending)
    if scans is not None:
        scans.end()
    seconds = _duration(config, forecast, explicit=explicit)
    first = first_to_expire(config, [source.url for source in opened])
    if as_json:
        facts = _plan_facts(forecast, seconds, config.throttle.rate)
        scanned_facts = {"scan": scans.facts()} if scans else {}
        print_json(facts | {"expires_first": first} | scanned_facts)
    else:
        _show_plan(forecast, seconds, config.throttle.rate)
        if scans is not None:
            scans.show()
        show_expiry(first)


def _duration(config: Config, forecast: Forecast, *, explicit: bool) -> float:
    """Return the seconds that the slowest route takes at its rate, its ramp included.

    All together take at least what [throttle] total allows. An ``explicit`` rate skips
    the ramp.
    """
    routes = [
        least_seconds(
            forecast.routes[route_name(each)],
            parse_rate(each.throttle.rate),
            timedelta(0) if explicit else each.throttle.ramp,
        )
        for each in route_configs(config)
    ]
    total = parse_rate(config.throttle.total)
    return max(*routes, least_seconds(forecast.messages, total, timedelta(0)))


def _plan_facts(forecast: Forecast, seconds: float, rate: str) -> dict[str, Any]:
    oldest = forecast.oldest
    return {
        "messages": forecast.messages,
        "recipients": forecast.recipients,
        "bytes": forecast.bytes,
        "domains": dict(forecast.domains.most_common()),
        "routes": dict(forecast.routes.most_common()),
        "held": dict(forecast.held),
        "finished": forecast.finished,
        "known": {state.value: n for state, n in forecast.known.items()},
        "oldest": oldest.isoformat() if oldest else None,
        "past_lifetime": forecast.expiring,
        "rate": rate,
        "seconds": round(seconds, 1),
    }


def _show_plan(forecast: Forecast, seconds: float, rate: str) -> None:
    console = stdout()
    console.print(
        f"{forecast.messages} messages, {forecast.recipients} recipients to try,"
        f" {format_size(forecast.bytes)}"
    )
    if forecast.finished:
        console.print(f"{forecast.finished} more messages are finished in the ledger")
    waiting = [
        f"{n} {state}" for state, n in forecast.known.items() if state not in FINAL
    ]
    if waiting:
        console.print(f"recipients that wait in the ledger: {', '.join(waiting)}")
    if forecast.oldest is not None:
        age = (datetime.now(UTC) - forecast.oldest).total_seconds()
        console.print(f"the oldest arrived {describe_duration(age)} ago")
    console.print(f"at {rate} this takes at least {describe_duration(seconds)}")
    if forecast.expiring:
        console.print(f"[yellow]{forecast.expiring} are older than the lifetime[/]")
    several = len(forecast.routes) > 1
    for route, count in forecast.routes.most_common() if several else ():
        console.print(f"{count} messages to {clean(route)}")
    table = Table("recipient domain", "recipients")
    for domain, count in forecast.domains.most_common(20):
        table.add(clean(domain, 300), str(count))
    table.end()
    for problem, count in forecast.held.most_common():
        console.print(f"[yellow]{count} would be held: {problem}[/]")
