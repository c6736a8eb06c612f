"""Whether the scanners of ``[scan]`` answer, for `check`."""

from typing import Any

from drainer.cli.output import clean, stdout
from drainer.config import Config
from drainer.config.route_section import route_configs
from drainer.delivery.build import make_scanners
from drainer.delivery.content_scan.limits import LimitedScanner
from drainer.delivery.content_scan.protocol import ScannerFailure, ScannerSettings
from drainer.smtp.health_check import OK, WARN

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


async def scanner_facts(config: Config) -> list[dict[str, Any]]:
    """Ask each scanner who it is; return the findings as JSON for scripts."""
    modes = {each.primary.forward_client for each in route_configs(config)}
    names_clients = not modes.isdisjoint({"xclient", "auto"})
    return [
        await _facts(each, names_clients=names_clients)
        for each in make_scanners(config)
    ]


async def _facts(settings: ScannerSettings, *, names_clients: bool) -> dict[str, Any]:
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


def show_scanner(facts: dict[str, Any]) -> None:
    """Print the finding of one scanner for people."""
    console, colour = stdout(), "yellow" if facts["verdict"] == WARN else "green"
    words = clean(f"{facts['place']}: {facts['reply']}", 300)
    name = clean(f"scanner {facts['scanner']}")
    console.print(f"{name:<28} [{colour}]{facts['verdict']:<4}[/] {words}")
    if facts["hint"]:
        console.print(f"    [yellow]{clean(facts['hint'], 500)}[/]")
