"""From a Config to the settings of a drain."""

import shlex
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from msgspec.structs import replace

from drainer.bounce.build import make_bouncing
from drainer.bounce.quarantine.delivery_copies import KeepSettings
from drainer.config import Config
from drainer.config.build.paths import kept_folder, ledger_url, quarantine_folder
from drainer.config.build.recipient_lists import census_before_drain
from drainer.config.build.routes import (
    make_probe,
    make_route,
    make_route_table,
    route_name,
)
from drainer.config.build.rules import make_rules
from drainer.config.route_section import route_configs
from drainer.config.throttle import ThrottleSection
from drainer.delivery.content_scan.protocol import ScannerSettings
from drainer.delivery.pacing.load import LoadSource
from drainer.delivery.settings import DrainSettings, PacingSettings, RouteSettings
from drainer.policy.admission.admit import Admission, ContentLimits
from drainer.policy.admission.content_scan import HoldRule
from drainer.policy.admission.selection import Choice
from drainer.policy.breaker.brake import Brake
from drainer.policy.breaker.detector import DetectorThresholds
from drainer.policy.pacing.rate import Rate, Rates, message_rate, parse_rate, parse_size
from drainer.policy.recipient.mapping import AddressMapping
from drainer.policy.recipient.retry import RetrySchedule

ALL, NOWHERE = Choice(), AddressMapping()


def build_settings(
    config: Config,
    choice: Choice = ALL,
    admission: Admission | None = None,
    *,
    explicit: bool,
    acknowledge: bool,
) -> DrainSettings:
    """Return the settings of a drain; an explicit rate skips the ramp.

    Without acknowledging (a rehearsal), drainer notifies no sender. Raises UsageError
    if a list of recipients cannot be read.
    """
    return DrainSettings(
        routes=build_routes(config, explicit=explicit),
        admission=admission or make_admission(config),
        total=_message_rate(config.throttle.total),
        choice=choice,
        schedule=config.retry.values_for(RetrySchedule),
        confirm_after=config.bounce.confirm_after,
        quarantine=quarantine_folder(ledger_url(config)),
        kept=make_keep(config),
        directory=census_before_drain(config),
        callout=config.recipients.callout,
        scanners=make_scanners(config),
        bouncing=make_bouncing(config)
        if acknowledge
        else None,  # a rehearsal notifies no sender
        acknowledge=acknowledge,
    )


def build_routes(config: Config, *, explicit: bool) -> tuple[RouteSettings, ...]:
    """Return the settings of all routes, in order; an explicit rate skips the ramp."""
    return tuple(
        _route_settings(each, explicit=explicit) for each in route_configs(config)
    )


def _route_settings(config: Config, *, explicit: bool) -> RouteSettings:
    """Return the settings of the route that a configuration is for."""
    breaker = config.breaker
    return breaker.values_for(
        RouteSettings,
        route=make_route(config),
        probe=make_probe(config),
        connections=config.primary.connections,
        rates=make_rates(config),
        pace=_pace(config.throttle, explicit=explicit),
        thresholds=_thresholds(config),
        brake=breaker.values_for(Brake, prefix="brake_"),
        rules=make_rules(config),
    )


def _thresholds(config: Config) -> DetectorThresholds:
    """Return when refusals are suspicious, and from when on a final dot is slow."""
    thresholds = config.breaker.values_for(DetectorThresholds)
    half = config.primary.dot_timeout.total_seconds() / 2
    return replace(thresholds, slow=min(thresholds.slow, half))


def make_rates(config: Config) -> Rates:
    """Return the rates that the primary may see."""
    throttle, most = config.throttle, config.primary.connections
    messages = parse_rate(throttle.rate)
    content = parse_rate(throttle.bytes, sized=True)
    opened = parse_rate(throttle.new_connections)
    return Rates(
        messages=message_rate(messages, throttle.burst) if messages else None,
        bytes=Rate(per_second=content, burst=content) if content else None,
        recipients=_message_rate(throttle.recipients),
        # This many may be open at once; only opening new ones is limited by the rate.
        connections=Rate(per_second=opened, burst=float(most)) if opened else None,
    )


def _message_rate(text: str) -> Rate | None:
    per_second = parse_rate(text)
    return message_rate(per_second, None) if per_second else None


def make_keep(config: Config) -> KeepSettings | None:
    """Return how copies of delivered mail are kept; None: they are not."""
    primary = config.primary
    if not primary.keep:
        return None
    return KeepSettings(
        folder=kept_folder(ledger_url(config)),
        age=primary.keep,
        most_bytes=parse_size(primary.keep_size),
    )


def make_scanners(config: Config) -> tuple[ScannerSettings, ...]:
    """Return the scanners that look at messages, in the order of the file."""
    return tuple(
        each.values_for(
            ScannerSettings,
            name=name,
            address=each.place,
            max_bytes=each.max_bytes,
            rule=each.values_for(HoldRule, hold=each.holds),
            defers=each.unreachable == "defer",
            pauses=config.breaker.pauses,
        )
        for name, each in config.scan.items()
    )


def _pace(throttle: ThrottleSection, *, explicit: bool) -> PacingSettings:
    load = None
    if throttle.load_command:
        command = tuple(shlex.split(throttle.load_command))
        load = throttle.values_for(LoadSource, prefix="load_", command=command)
    full = explicit or not throttle.ramp
    return throttle.values_for(PacingSettings, full=full, load=load)


def make_admission(
    config: Config,
    redirect: AddressMapping = NOWHERE,
    no_route: Mapping[str, str] = MappingProxyType({}),
    unanswered: Iterable[str] = (),
) -> Admission:
    """Return the rules about single messages, and their routes (make_route_table)."""
    return Admission(
        routes=make_route_table(config, no_route, unanswered),
        limits={
            route_name(each): each.primary.values_for(ContentLimits)
            for each in route_configs(config)
        },
        usual_limits=config.primary.values_for(ContentLimits),
        redirect=redirect,
    )
