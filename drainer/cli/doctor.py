"""`doctor`: check what an outage will need, and print a remedy for each problem."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from drainer.cli.filters import require_mailbox
from drainer.cli.log import stderr
from drainer.cli.options import ConfigOption, JsonOption, LedgerOption, load
from drainer.cli.output import clean, print_json, say, stdout
from drainer.cli.table import Table
from drainer.config.host import split_host
from drainer.doctor.build import STRICT_SENDER, DoctorRequest, make_examination
from drainer.doctor.checks import examine, has_failure
from drainer.doctor.checks.check import DoctorFinding, Grade
from drainer.doctor.checks.facts import DoctorFacts
from drainer.doctor.run import ShowWaiting, collect_facts
from drainer.errors import PrimaryNotReady, UsageError
from drainer.policy.bounce.facts import parse_address

COLOURS = {
    Grade.OK: "green",
    Grade.WARN: "yellow",
    Grade.FAIL: "red",
    Grade.UNKNOWN: "magenta",
    Grade.SKIPPED: "dim",
}
"""Styles of drainer.cli.markup."""


def doctor(
    domain: Annotated[
        str,
        typer.Argument(
            metavar="DOMAIN", help="The mail domain to check.", show_default=False
        ),
    ],
    primary: Annotated[
        str,
        typer.Option(
            "--primary",
            "--to",
            "-t",
            metavar="HOST[:PORT]",
            help="The primary; else [primary] host, else the MX with the lowest"
            " number.",
        ),
    ] = "",
    backup: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST[:PORT]",
            help="A backup; may be repeated. Default: every MX but the primary.",
        ),
    ] = None,
    recipient: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="An address of DOMAIN that exists; else one of [health] accept.",
        ),
    ] = "",
    spf_sender: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS", help="A sender whose domain publishes SPF with -all."
        ),
    ] = STRICT_SENDER,
    dns: Annotated[
        str,
        typer.Option(
            metavar="SERVER[:PORT]",
            help="DNS server. Default: [bounce] dns_servers, else the system's.",
        ),
    ] = "",
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    send_tests: Annotated[
        bool,
        typer.Option(
            "--send-tests",
            help="Send the GTUBE and EICAR test messages to each --backup, addressed"
            " to --recipient.",
        ),
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Check before an outage that MX, backups, primary and this host are ready.

    Each failed check has a remedy. Without --send-tests it sends no message; it writes
    nothing. It takes half a minute at most, with test messages a minute more.

    Exit status: 0 nothing failed, 2 bad usage, 3 a check failed.

    Example: drainer doctor example.org --recipient anna@example.org

    Example: drainer doctor example.org --backup mx2.example.net --send-tests
    --recipient postmaster@example.org
    """
    start = time.monotonic()
    sections = {"bounce": _dns(dns)} if dns else {}
    config = load(path, to=primary, ledger=ledger, sections=sections, acts=True)
    asked = DoctorRequest(
        domain=domain,
        backups=backup or (),
        recipient=require_mailbox(recipient) if recipient else "",
        strict_sender=require_mailbox(spf_sender),
        send_tests=send_tests,
    )
    settings = make_examination(config, asked)
    with _progress() as show:
        facts = asyncio.run(collect_facts(settings, show))
    findings = examine(facts)
    seconds = time.monotonic() - start
    if json_:
        print_json(facts_of(facts, findings, seconds))
    else:
        _show(facts, findings)
    if has_failure(findings):
        raise typer.Exit(PrimaryNotReady.exit_code)


def _dns(text: str) -> dict[str, Any]:
    host, port = split_host(text)
    if parse_address(host) is None:
        message = f"--dns {text[:60]!r} is not a valid address"
        raise UsageError(message, hint="write ADDRESS, ADDRESS:PORT or [IPv6]:PORT")
    return {"dns_servers": [host], "dns_port": port or 53}


@contextlib.contextmanager
def _progress() -> Iterator[ShowWaiting]:
    """Show on a terminal which checks are still running."""
    if not stderr.is_terminal:
        yield lambda _: None
        return
    with stderr.status("") as status:
        yield lambda left: status.update(f"waiting for {clean(left)}")


def facts_of(
    facts: DoctorFacts, findings: Sequence[DoctorFinding], seconds: float
) -> dict[str, Any]:
    """Return the findings for scripts."""
    return {
        "domain": facts.domain.name,
        "primary": facts.domain.primary,
        "backups": list(facts.domain.backups),
        "ready": not has_failure(findings),
        "verdicts": _counts(findings),
        "seconds": round(seconds, 3),
        "findings": [
            {
                "check": each.check,
                "subject": each.subject,
                "verdict": each.grade.value,
                "found": each.found,
                "remedy": each.remedy,
            }
            for each in findings
        ],
    }


def _counts(findings: Sequence[DoctorFinding]) -> dict[str, int]:
    counts = Counter(each.grade for each in findings)
    return {grade.value: counts[grade] for grade in Grade}


def _show(facts: DoctorFacts, findings: Sequence[DoctorFinding]) -> None:
    backups = ", ".join(facts.domain.backups) or "none"
    primary = facts.domain.primary or "unknown"
    title = f"{facts.domain.name}: primary {primary}; backups {backups}"
    stdout().print(f"[bold]{clean(title, 1000)}[/]")
    table = Table("check", "", "about", "found", fold="found")
    for each in findings:
        grade = f"[{COLOURS[each.grade]}]{each.grade}[/]"
        remedy = f"[yellow]{clean(each.remedy, 500)}[/]" if each.remedy else ""
        cells = each.check, grade, clean(each.subject), clean(each.found, 400)
        table.add(*cells, note=remedy)
    table.end()
    counts = _counts(findings).items()
    say(", ".join(f"{count} {grade}" for grade, count in counts if count))
