"""`check`: the health of the primary, stage by stage."""

import asyncio
from collections.abc import Sequence
from typing import Any

import typer

from drainer.cli.options import ConfigOption, JsonOption, ToOption, load
from drainer.cli.output import clean, print_json, stdout, table
from drainer.config.build.routes import make_probe, make_route
from drainer.delivery.mx_hosts import routes_now
from drainer.errors import PrimaryNotReady, UsageError
from drainer.smtp.certificate import describe
from drainer.smtp.health_check import (
    FAIL,
    WARN,
    HealthFinding,
    HealthProbe,
    HealthReport,
)
from drainer.smtp.health_check import check as check_primary
from drainer.smtp.route import Route

_COLOURS = {FAIL: "red", WARN: "yellow"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check")(check)


def check(
    path: ConfigOption = None, to: ToOption = "", *, json_: JsonOption = False
) -> None:
    """Check the primary, stage by stage, without sending a message; print a table.

    With `[[routes]]` it checks the primary of each of them.

    Exit status: 0 ready; 2 mail loop, or bad usage; 3 not ready.

    Example: drainer check --to mx1.example.com
    """
    config = load(path, to=to, acts=True)
    routes = [(make_route(each), make_probe(each)) for each in routes_now(config)]
    reports = asyncio.run(_check_all(routes))
    for (route, _), health in zip(routes, reports, strict=True):
        show(health, str(route), as_json=json_)
    for (route, _), health in zip(routes, reports, strict=True):
        refuse_unless_healthy(health, str(route))


async def _check_all(
    routes: Sequence[tuple[Route, HealthProbe]],
) -> list[HealthReport]:
    """Check the primaries of all routes at the same time."""
    return await asyncio.gather(*(check_primary(*each) for each in routes))


def show(health: HealthReport, route: str, *, as_json: bool) -> None:
    """Print the findings."""
    if as_json:
        print_json(facts_of(health, route))
        return
    rows = table("stage", "", "time", "reply", title=f"primary {route}")
    for finding in health.findings:
        colour = _COLOURS.get(finding.verdict, "green")
        time = f"{finding.seconds * 1000:.0f} ms" if finding.seconds else ""
        verdict = f"[{colour}]{finding.verdict}[/]"
        rows.add_row(clean(finding.stage), verdict, time, clean(_words(finding)))
        if finding.hint:
            rows.add_row("", "", "", f"[yellow]{clean(finding.hint, 500)}[/]")
    stdout().print(rows)


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
        message = f"the primary {route} is not ready: {failed.stage}: {failed.reply}"
        raise PrimaryNotReady(message, hint=failed.hint)
