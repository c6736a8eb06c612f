"""`check`: the health of the primary, stage by stage."""

import asyncio
from typing import Any

import typer
from msgspec.structs import replace

from drainer.cli.options import ConfigOption, JsonOption, ToOption, load
from drainer.cli.output import clean, print_error, print_json, stdout
from drainer.cli.section_options import Sections, with_primary
from drainer.config import Config
from drainer.config.build.routes import make_probe, make_route
from drainer.config.route_section import route_configs
from drainer.delivery.build import make_scanners
from drainer.delivery.content_scan.limits import LimitedScanner
from drainer.delivery.content_scan.protocol import ScannerFailure, ScannerSettings
from drainer.delivery.mx_hosts import routes_now
from drainer.errors import DrainerError, PrimaryNotReady, UsageError
from drainer.mail.reply import printable
from drainer.smtp.certificate import describe
from drainer.smtp.connection import ConnectStep
from drainer.smtp.health_check import (
    FAIL,
    OK,
    WARN,
    HealthFinding,
    HealthProbe,
    HealthReport,
)
from drainer.smtp.health_check import check as check_primary
from drainer.smtp.route import Route

_COLOURS = {FAIL: "red", WARN: "yellow"}
_SECONDS = 30.0
"""For the banner and for EHLO; RFC 5321 4.5.3.2 has minutes for a mail server."""
_NO_FULL_NAME = (
    "{!r} is not a full host name, and many servers refuse it: set [primary] helo"
)
_WAITS = 'mail waits until it answers: start it, or set unreachable = "send"'
_SENT = "mail is sent without it"
_SKIPS = (
    "primary_filters: it is not asked about mail whose client XCLIENT names to the"
    " primary"
)
_NO_EFFECT = (
    "primary_filters has no effect: [primary] forward_client is neither xclient nor"
    " auto"
)


@with_primary
def check(
    path: ConfigOption = None,
    to: ToOption = "",
    *,
    primary: Sections,
    json_: JsonOption = False,
) -> None:
    """Check the primary, stage by stage, without sending a message.

    It prints each stage when that has ended. It waits 30 seconds for the banner and for
    EHLO, unless [primary] banner_timeout is set. With `[[routes]]` it checks the
    primary of each of them. It also asks each scanner of `[scan]` whether it answers.

    Exit status: 0 ready; 2 mail loop, or bad usage; 3 not ready; 130 interrupted.

    Example: drainer check --to mx1.example.com
    """
    config = load(path, to=to, sections=primary, acts=True)
    reports = []
    try:
        for each in routes_now(config):
            route = _patient_for_a_person(make_route(each), each)
            health = HealthReport() if json_ else _PrintedReport()
            reports.append((route, health))
            _check_route(route, make_probe(each), health)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        for route, health in reports if json_ else ():
            print_json({"helo": route.helo} | facts_of(health, str(route)))
    for facts in asyncio.run(_scanner_facts(config)):
        print_json(facts) if json_ else _show_scanner(facts)
    try:
        for route, health in reports:
            refuse_unless_healthy(health, str(route))
    except DrainerError as error:
        raise typer.Exit(print_error(error)) from None


def _check_route(route: Route, probe: HealthProbe, health: HealthReport) -> None:
    """Check the primary of one route; a person sees each stage when it has ended."""
    if isinstance(health, _PrintedReport):
        stdout().print(
            f"primary {clean(route)}; our name in EHLO is {clean(route.helo)}"
        )
    if "." not in route.helo and not route.helo.startswith("["):
        health.advise("our name", _NO_FULL_NAME.format(route.helo))
    asyncio.run(check_primary(route, probe, health))
    if isinstance(health, _PrintedReport) and health.has_failed and health.ready:
        stdout().print("ready all the same: another of its servers or addresses is")


def _patient_for_a_person(route: Route, config: Config) -> Route:
    """Return the route with a limit for the banner that a person waits for."""
    if "banner_timeout" in config.primary.model_fields_set:
        return route
    timeouts = replace(route.timeouts, banner=_SECONDS, ehlo=_SECONDS)
    return replace(route, timeouts=timeouts)


class _PrintedReport(HealthReport):
    has_failed = False

    def add(self, stage: str, step: ConnectStep, verdict: str, hint: str = "") -> None:
        """Add the finding of one step, and print it."""
        HealthReport.add(self, stage, step, verdict, hint)
        self.has_failed |= verdict == FAIL
        _show(self.findings[-1])

    def advise(self, stage: str, hint: str) -> None:
        """Add a warning that comes from no reply, and print it."""
        HealthReport.advise(self, stage, hint)
        _show(self.findings[-1])


def _show(finding: HealthFinding) -> None:
    colour = _COLOURS.get(finding.verdict, "green")
    time = f"{finding.seconds * 1000:.0f} ms" if finding.seconds else ""
    console = stdout()
    console.print(
        f"{clean(finding.stage):<28} [{colour}]{finding.verdict:<4}[/] {time:>9} "
        f" {clean(_words(finding))}"
    )
    if finding.hint:
        console.print(f"    [yellow]{clean(finding.hint, 500)}[/]")


def _words(finding: HealthFinding) -> str:
    certificate = _certificate(finding)
    words = [finding.reply]
    if "tls" in finding.facts:
        words.append(f"{finding.facts['tls']} {finding.facts.get('cipher', '')}")
        words.append("verified" if finding.facts.get("verified") else "NOT VERIFIED")
    if certificate:
        names = ", ".join(certificate.get("names", [])[:5]) or "no subjectAltName"
        words.append(
            f"certificate {certificate['subject']} for {names},"
            f" until {certificate['not_after']}"
        )
    if finding.stage == "connect":
        words.append(str(finding.facts.get("address", "")))
    return "; ".join(filter(None, words))


def _certificate(finding: HealthFinding) -> dict[str, Any]:
    der = finding.facts.get("certificate_der")
    return describe(bytes.fromhex(der)) if isinstance(der, str) else {}


def facts_of(health: HealthReport, route: str) -> dict[str, Any]:
    """Return the findings as JSON for scripts."""
    stages = []
    for finding in health.findings:
        facts = {k: v for k, v in finding.facts.items() if k != "certificate_der"}
        if certificate := _certificate(finding):
            facts["certificate"] = certificate
        stages.append(
            {
                "stage": finding.stage,
                "verdict": finding.verdict,
                "seconds": round(finding.seconds, 6),
                "reply": finding.reply,
                "hint": finding.hint,
                **facts,
            }
        )
    return {
        "primary": route,
        "ready": health.ready,
        "loop": health.loop,
        "stages": stages,
    }


def refuse_unless_healthy(health: HealthReport, route: str) -> None:
    """Raise the error for a failed check: UsageError for a loop, PrimaryNotReady."""
    if health.loop:
        message = f"{route} introduces itself with our own name: this is a mail loop"
        hint = (
            "check --to; if the host is right, set [primary] helo to another name, or"
            " allow_own_name = true"
        )
        raise UsageError(message, hint=hint)
    if not health.ready:
        failed = next(f for f in health.findings if f.verdict == FAIL)
        said = printable(str(failed.reply))
        message = f"the primary {route} is not ready: {failed.stage}: {said}"
        raise PrimaryNotReady(message, hint=failed.hint)


async def _scanner_facts(config: Config) -> list[dict[str, Any]]:
    """Ask each scanner who it is; return the findings as JSON for scripts."""
    modes = {each.primary.forward_client for each in route_configs(config)}
    names_clients = not modes.isdisjoint({"xclient", "auto"})
    return [
        await _scanner(each, names_clients=names_clients)
        for each in make_scanners(config)
    ]


async def _scanner(settings: ScannerSettings, *, names_clients: bool) -> dict[str, Any]:
    verdict, hints = OK, list[str]()
    if settings.primary_filters:
        hints.append(_SKIPS if names_clients else _NO_EFFECT)
    try:
        reply = await LimitedScanner(settings).ping()
    except ScannerFailure as failure:
        verdict, reply = WARN, str(failure)
        hints.append(_WAITS if settings.defers else _SENT)
    return {
        "scanner": settings.name,
        "place": settings.address or settings.command[0],
        "verdict": verdict,
        "reply": reply,
        "hint": "; ".join(hints),
    }


def _show_scanner(facts: dict[str, Any]) -> None:
    console, colour = stdout(), "yellow" if facts["verdict"] == WARN else "green"
    words = clean(f"{facts['place']}: {facts['reply']}", 300)
    name = clean(f"scanner {facts['scanner']}")
    console.print(f"{name:<28} [{colour}]{facts['verdict']:<4}[/] {words}")
    if facts["hint"]:
        console.print(f"    [yellow]{clean(facts['hint'], 500)}[/]")
