"""`bounces`: list pending and sent bounces; approve, cancel, and send what is due."""

from collections.abc import Sequence
from functools import cache

import typer
from msgspec.structs import replace

from drainer.bounce import approval
from drainer.bounce.quarantine.store import Quarantine
from drainer.cli.action_options import (
    OperatorRequest,
    as_verb,
    select_messages,
    show_touched,
)
from drainer.cli.drain import run_drain, worker_processes
from drainer.cli.event_loop import run_loop
from drainer.cli.filters import with_filters
from drainer.cli.options import (
    ConfigOption,
    IdArgument,
    JsonOption,
    LedgerOption,
    NoCheckOption,
    ToOption,
    load,
)
from drainer.cli.output import print_json, say, stdout, warn
from drainer.cli.pending_bounces import (
    add_row,
    bounce_facts,
    bounce_table,
    open_decider,
    print_facts,
)
from drainer.cli.section_options import Sections, merge, with_primary
from drainer.cli.verify import source_of
from drainer.config import Config
from drainer.config.build.paths import ledger_url, quarantine_folder
from drainer.config.build.routes import make_route
from drainer.config.build.spools import make_sources
from drainer.delivery.build import build_settings
from drainer.delivery.mx_hosts import routes_now
from drainer.delivery.route_resolution import resolve_routes
from drainer.delivery.run import DrainRequest
from drainer.errors import MessageUnreadable, SourceError, UsageError
from drainer.ledger.filters import Filters
from drainer.ledger.reader import LedgerReader
from drainer.ledger.reports.pending_bounces import (
    OperatorDecision,
    PendingBounce,
    find_drained_sources,
    find_pending,
    limits_now,
    rule,
)
from drainer.mail.message import Message, SpooledMessage
from drainer.mail.reply import printable
from drainer.policy.recipient.state import Event, State
from drainer.runtime.process import utcnow
from drainer.sources.protocol import Source

app = typer.Typer(no_args_is_help=True)


@app.command("list")
@with_filters
def list_(
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    filters: Filters,
    json_: JsonOption = False,
) -> None:
    """List pending bounces and what drainer would send; also the bounces it sent.

    One line for each recipient. The bounce rules decide now, on the evidence gathered
    so far.

    Example: drainer bounces list --domain example.com
    """
    config = load(path, ledger=ledger)
    pages = bounce_table()
    with open_decider(config) as (report, bounce_decider):
        for fact in bounce_facts(report, bounce_decider, filters):
            if json_:
                print_json(fact)
            else:
                add_row(pages, fact)
    if not json_:
        pages.end()


@app.command("show")
def show(
    id_: IdArgument,
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    json_: JsonOption = False,
) -> None:
    """Show one message's bounces, pending or sent, with the evidence.

    Example: drainer bounces show 4bX1Yz3Qk2z
    """
    config = load(path, ledger=ledger)
    with open_decider(config) as (report, bounce_decider):
        chosen = Filters(messages=[report.resolve(id_)])
        facts = list(bounce_facts(report, bounce_decider, chosen))
    if not facts:
        say("no recipient of this message was refused permanently; see `drainer show`")
    for fact in facts:
        if json_:
            print_json(fact)
        else:
            print_facts(fact)


@app.command("approve")
@as_verb
def approve(asked: OperatorRequest) -> None:
    """Confirm refusals now: the bounce rules decide, bounce or quarantine.

    A bounce is sent only if the sender is proven; otherwise the message goes to
    quarantine.

    Example: drainer bounces approve 4bX1Yz3Qk2z --reason 'the user has left'
    """
    with open_decider(asked.config) as (report, bounce_decider):
        chosen = _select_pending(report, "approve", asked)
        if bounce_decider is None:
            rulings = [
                OperatorDecision(pending=r, event=Event.APPROVED_REFUSED)
                for r in chosen
            ]
        else:
            rulings = list(approval.approvals(bounce_decider, chosen, utcnow()))
        if left := len(chosen) - len(rulings):
            say(f"{left} still wait: DNS has not answered; try again later")
        _carry_out("approve", asked, report, rulings)


@app.command("cancel")
@as_verb
def cancel(asked: OperatorRequest) -> None:
    """Send no bounce: put the refused messages into quarantine.

    Example: drainer bounces cancel --sender newsletter@ --reason 'not wanted'
    """
    with open_decider(asked.config) as (report, _):
        chosen = _select_pending(report, "cancel", asked)
        rulings = [
            OperatorDecision(pending=each, event=Event.CANCELLED) for each in chosen
        ]
        _carry_out("cancel", asked, report, rulings)


def _select_pending(
    report: LedgerReader, verb: str, asked: OperatorRequest
) -> list[PendingBounce]:
    chosen = select_messages(report, asked.ids, asked.filters, verb)
    pending = State.BOUNCE_PENDING.value
    return [
        each for each in find_pending(report, chosen) if each.row["state"] == pending
    ]


def _carry_out(
    verb: str,
    asked: OperatorRequest,
    report: LedgerReader,
    rulings: Sequence[OperatorDecision],
) -> None:
    """Ask for confirmation, copy the messages, and record the decisions."""
    done = rulings
    if asked.dry_run:
        limits = limits_now(report, utcnow())
        done = [each.within_limits(limits) for each in rulings]
        if not asked.as_json:
            show_touched(each.pending.row for each in rulings)
    elif rulings:
        asked.insist(verb, len(rulings))
        url = ledger_url(asked.config)
        quarantine = Quarantine(quarantine_folder(url))
        approval.keep_copies(
            quarantine, report, rulings, _content_reader(asked.config, quarantine)
        )
        done = rule(url, verb, rulings, asked.reason)
    _print_counts(done, dry_run=asked.dry_run, as_json=asked.as_json)
    if len(done) != len(rulings):
        say(f"{len(rulings) - len(done)} had changed state in the meantime")


def _content_reader(config: Config, quarantine: Quarantine) -> approval.Open:
    """Return what opens messages: in their sources, opened once, or as copies."""
    find_source = cache(lambda url: source_of(url, config))

    def open_content(message: Message) -> SpooledMessage:
        try:
            return find_source(message.source).open(message)
        except (SourceError, MessageUnreadable):
            copy = quarantine.open(message)
            if copy is None:
                raise
            return copy

    return open_content


def _print_counts(
    rulings: Sequence[OperatorDecision], *, dry_run: bool, as_json: bool
) -> None:
    bounced = sum(each.event is Event.APPROVED for each in rulings)
    if as_json:
        facts = {"bounced": bounced, "quarantined": len(rulings) - bounced}
        print_json({"recipients": len(rulings), "dry_run": dry_run, **facts})
        return
    would = "would be " if dry_run else ""
    stdout().print(
        f"{bounced} recipients {would}bounced, {len(rulings) - bounced}"
        f" {would}quarantined"
    )
    if bounced and not dry_run:
        say("the bounces are queued: `drainer bounces run` sends them")


@app.command("run")
@with_primary
def run(
    to: ToOption = "",
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    primary: Sections,
    no_check: NoCheckOption = False,
    json_: JsonOption = False,
) -> None:
    """Confirm the refusals that are due, and send the bounces that are due.

    This is a drain of everything that the ledger knows for this primary, without a
    scan. It also sends other mail that is due.

    Exit status: as for `drain`.

    Example: drainer bounces run --to mx1.example.com
    """
    quick = merge(primary, {"breaker": {"give_up_after": "1m"}})
    config = load(path, to=to, ledger=ledger, sections=quick, acts=True)

    with worker_processes(config) as workers:
        sources = _open_sources(config)
        whole, admission, _ = resolve_routes(config, sources, scans=False)
        settings = build_settings(
            whole, admission=admission, explicit=False, acknowledge=True
        )
        request = DrainRequest(
            config=whole,
            settings=replace(settings, scans=False),
            sources=sources,
            url=ledger_url(whole),
        )
        request.check, request.as_json = not no_check, json_
        code = run_loop(lambda: run_drain(request, workers))
    raise typer.Exit(code)


def _open_sources(config: Config) -> list[Source]:
    """Open every source that was drained to this primary and still exists.

    Bounces are built from copies, so they can leave without any source.
    """
    names = [str(make_route(each)) for each in routes_now(config)]
    with LedgerReader(ledger_url(config)) as report:
        urls = find_drained_sources(report, names)
        waiting = {url for url in urls if report.sums([url]).messages["remaining"]}
    named = {
        source.url: name
        for name in config.sources
        for source in make_sources(config, [name], [])
    }
    found: list[Source] = []
    for url in urls:
        try:
            found += make_sources(config, [named.get(url, url)], [])
        except SourceError as error:
            if isinstance(error.__cause__, PermissionError) and url in waiting:
                message = f"mail of {printable(url)} waits, but {error}"
                hint = "run it as the user that drained it; a unit needs its override"
                raise UsageError(message, hint=hint) from None
            warn(f"skipping {url}: {error}")
    if not urls:
        message = f"this ledger knows no drain to {', '.join(names)}"
        raise UsageError(message, hint="give the --to and the --ledger of the drain")
    return found
