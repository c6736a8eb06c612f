"""The end of a drain: its summary, what remains and why, and what to run next."""

from dataclasses import asdict
from typing import Any

from drainer.bounce.reports import ReportCounts
from drainer.cli.log import is_journal, mask_addresses
from drainer.cli.output import clean, print_command, print_json, stdout
from drainer.cli.spool_advice import DrainOutcome, advice_on
from drainer.cli.times import format_time
from drainer.config.build.paths import same_options
from drainer.delivery.drain import Drain
from drainer.delivery.run import Run
from drainer.ledger.reader import LedgerReader
from drainer.ledger.reports.pending_bounces import outlook
from drainer.policy.breaker.remedies import advice, remedy
from drainer.policy.recipient.state import State
from drainer.runtime.units import describe_duration, format_size


def summary_of(run: Run) -> dict[str, Any]:
    """Return the facts of a run that ended."""
    drain, ledger, ended = run.engine, run.ledger, run.result
    urls = [source.url for source in run.request.sources]
    with LedgerReader(run.request.url) as report:
        states, messages = report.states(urls), report.sums(urls).messages
        spools = _advice(run, report)
    seconds = (ended.at - drain.progress.started).total_seconds()
    sent = drain.progress.sent_messages
    failure = ended.error
    return {
        "exit": ended.code,
        "error": str(failure) if failure else None,
        "hint": (failure.hint or None) if failure else None,
        "messages": messages,
        "recipients": states,
        "sent_messages": sent,
        "routes": [
            {
                "route": name,
                "sent_messages": len(route.progress.sent),
                "stopped": bool(route.breaker_guard.open_breakers or route.not_ready),
            }
            for name, route in drain.routes.items()
        ],
        "not_chosen": drain.progress.passed,
        "seconds": round(seconds, 3),
        "messages_per_second": round(sent / seconds, 2) if seconds else 0.0,
        "bytes": drain.progress.sent_bytes,
        "reports": asdict(count) if (count := _reports(drain)) else {},
        "commits": ledger.commits,
        "run_id": ledger.run_id,
        "spools": spools,
    }


def _advice(run: Run, report: LedgerReader) -> list[dict[str, str]]:
    """Return what is to be done with each spool, unless nothing was to change."""
    settings, failure = run.request.settings, run.result.error
    if failure is not None or not (settings.acknowledge and settings.scans):
        return []
    options = same_options(run.request.config, run.request.url)
    outcome = DrainOutcome(run.result.code, options, report)
    return [
        {"source": source.url, **advice_on(source, outcome)._asdict()}
        for source in run.request.sources
    ]


def print_summary(run: Run, summary: dict[str, Any]) -> None:
    """Print how it ended, for a script or for a person."""
    if run.request.as_json:
        print_json(summary)
        return
    console = stdout()
    console.print(
        f"{summary['sent_messages']} messages ({format_size(summary['bytes'])}) sent in"
        f" {describe_duration(summary['seconds'])},"
        f" {summary['messages_per_second']:.1f} per second"
    )
    for each in summary["routes"] if len(summary["routes"]) > 1 else ():
        end = "[red]stopped[/]" if each["stopped"] else "finished"
        sent = f"{each['sent_messages']} messages sent"
        console.print(f"  {clean(each['route'])}: {sent}, {end}")
    for state, count in summary["recipients"].items():
        if count:
            console.print(f"  {count} {state}")
    _print_next(run)
    for spool in summary["spools"]:
        console.print(clean(spool["words"], 1000))
        if spool["command"]:
            print_command(spool["command"])


def _reports(drain: Drain) -> ReportCounts | None:
    return drain.bounce_service.reporting.count if drain.bounce_service else None


def _print_reports(run: Run) -> None:
    """Print which bounces were sent, what is due when, and what to run."""
    console = stdout()
    count = _reports(run.engine)
    if count and (count.sent or count.failed or count.deferred):
        console.print(
            f"bounces to senders: {count.sent} sent, {count.failed} failed,"
            f" {count.deferred} postponed"
        )
    with LedgerReader(run.request.url) as report:
        found = outlook(report)
    if found.pending and found.pending_due:
        console.print(
            f"{found.pending} refused recipients wait for confirmation, due from"
            f" {format_time(found.pending_due)} on; `drainer bounces list` shows who"
            " would get a bounce. Then drain again, or run:"
        )
        request = run.request
        options = same_options(request.config, request.url, primary=True)
        print_command(f"drainer bounces run{options}")
    if found.queued:
        console.print(
            f"{found.queued} bounces are queued: `drainer bounces run` sends those that"
            " are due, and so does the next drain"
        )


def _print_breakers(drain: Drain) -> None:
    """Print which circuit breakers are open, why, and what to do about it."""
    console = stdout()
    for route in drain.routes.values():
        if route.not_ready:
            console.print(
                f"[red]nothing was sent there: {clean(_quote(route.not_ready))}[/]"
            )
    for name, breaker in drain.open_breakers:
        cause = breaker.cause
        why = cause.classification.reason if cause else "waiting did not help"
        where = f" for {clean(breaker.scope)}" if breaker.scope else ""
        where += f" at {clean(name)}" if len(drain.routes) > 1 else ""
        console.print(f"[red]stopped{where}: {clean(why)}[/]")
        if cause is not None:
            console.print(f"  the primary said: {clean(_quote(cause.reply))}")
            console.print(f"  {clean(remedy(cause), 500)}")
    if drain.open_breakers:
        console.print(
            "no message was judged by this refusal; fix it and run the same command"
            " again"
        )
    if drain.is_braked:
        console.print(
            "[yellow]brake: too many permanent refusals are pending, so none becomes"
            " final[/]; look at `drainer list --state bounce-pending`"
        )


def _quote(words: str) -> str:
    """Return the primary's words; a journal gets them as it gets messages."""
    return mask_addresses(words) if is_journal() else words


def _print_next(run: Run) -> None:
    console = stdout()
    drain = run.engine
    _print_breakers(drain)
    if drain.progress.passed:
        console.print(f"  {drain.progress.passed} more messages were not selected")
    if drain.progress.is_cut:
        console.print(
            "  --limit ended the scan of the spool: there may be more messages"
        )
    urls = [source.url for source in run.request.sources]
    with LedgerReader(run.request.url) as report:
        for row in report.reasons(urls):
            due = f", due {format_time(row['due'])}" if row["due"] else ""
            sample = "for example:" if row["varies"] else ""
            why = " ".join(filter(None, (row["rule"], sample, row["reply"])))
            words = f": {clean(_quote(why))}" if why else ""
            if due or words:  # the number of each state is above
                console.print(f"  {row['count']} {row['state']}{due}{words}")
            if row["state"] == State.HELD:
                words = advice(row["rule"], row["reply"] or "")
                console.print(f"    {clean(words, 500)}")
    _print_reports(run)
    console.print("see `drainer status` and `drainer why ID` for details")
