"""From a Config to the settings of a drain."""

import shlex

from msgspec.structs import replace

from drainer.bounce.build import make_bouncing
from drainer.bounce.quarantine.delivery_copies import KeepSettings
from drainer.config import Config
from drainer.config.build.paths import kept_folder, ledger_url, quarantine_folder
from drainer.config.build.routes import make_route
from drainer.config.build.rules import make_rules
from drainer.config.throttle import ThrottleSection
from drainer.delivery.pacing.load import LoadSource
from drainer.delivery.settings import DrainSettings, PacingSettings
from drainer.ledger.breaker_waits import Brake
from drainer.policy.admission.admit import Admission
from drainer.policy.admission.selection import Choice
from drainer.policy.breaker.detector import DetectorThresholds
from drainer.policy.pacing.rate import Rate, Rates, message_rate, parse_rate, parse_size
from drainer.policy.recipient.mapping import AddressMapping
from drainer.policy.recipient.retry import RetrySchedule

ALL, NOWHERE = Choice(), AddressMapping()


def build_settings(
    config: Config,
    choice: Choice = ALL,
    redirect: AddressMapping = NOWHERE,
    *,
    explicit: bool,
    acknowledge: bool,
) -> DrainSettings:
    """Return the settings of a drain; an explicit rate skips the ramp.

    Without acknowledging (a rehearsal), drainer notifies no sender.
    """
    primary, throttle = config.primary, config.throttle
    return DrainSettings(
        route=make_route(config),
        admission=make_admission(config, redirect),
        choice=choice,
        schedule=config.retry.values_for(RetrySchedule),
        connections=primary.connections,
        rates=make_rates(config),
        pace=_pace(throttle, explicit=explicit),
        pauses=config.breaker.pauses,
        give_up_after=config.breaker.give_up_after,
        known_good=config.health.accept,
        sender=config.health.sender,
        confirm_after=config.bounce.confirm_after,
        thresholds=_thresholds(config),
        brake=Brake(least=config.breaker.brake_least, share=config.breaker.brake_share),
        quarantine=quarantine_folder(ledger_url(config)),
        kept=make_keep(config),
        bouncing=make_bouncing(config)
        if acknowledge
        else None,  # a rehearsal notifies no sender
        rules=make_rules(config),
        acknowledge=acknowledge,
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
    recipients = parse_rate(throttle.recipients)
    octets = parse_rate(throttle.bytes, sized=True)
    opened = parse_rate(throttle.new_connections)
    return Rates(
        messages=message_rate(messages, throttle.burst) if messages else None,
        octets=Rate(per_second=octets, burst=octets) if octets else None,
        recipients=message_rate(recipients, None) if recipients else None,
        # This many may be open at once; only opening new ones is limited by the rate.
        connections=Rate(per_second=opened, burst=float(most)) if opened else None,
    )


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


def _pace(throttle: ThrottleSection, *, explicit: bool) -> PacingSettings:
    load = None
    if throttle.load_command:
        load = LoadSource(
            command=tuple(shlex.split(throttle.load_command)), high=throttle.load_high
        )
    return PacingSettings(
        adaptive=throttle.adaptive,
        ramp=throttle.ramp,
        full=explicit or not throttle.ramp,
        load=load,
    )


def make_admission(config: Config, redirect: AddressMapping = NOWHERE) -> Admission:
    """Return the rules about single messages."""
    return Admission(
        domains=frozenset(config.primary.domains),
        max_hops=config.primary.max_hops,
        bare_newlines=config.primary.bare_newlines,
        redirect=redirect,
    )
