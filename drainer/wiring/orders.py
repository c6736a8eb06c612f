"""From a Config to what a drain is told to do."""

from drainer.config import Config
from drainer.ledger.waiting import Brake
from drainer.orders import Orders
from drainer.policy.admit import Admission
from drainer.policy.detector import Windows
from drainer.policy.redirect import Redirect
from drainer.policy.schedule import Schedule
from drainer.policy.select import Choice
from drainer.policy.throttle import Rate, message_rate, parse_rate
from drainer.wiring.hosts import make_route
from drainer.wiring.places import ledger_url, quarantine_folder
from drainer.wiring.reports import make_bouncing
from drainer.wiring.rules import make_rules

ALL, NOWHERE = Choice(), Redirect()


def make_orders(
    config: Config,
    choice: Choice = ALL,
    redirect: Redirect = NOWHERE,
    *,
    explicit: bool,
    acknowledge: bool,
) -> Orders:
    """Return what a drain is told to do; an explicit rate skips the ramp.

    Without acknowledging, a rehearsal, nobody is told of anything.
    """
    primary, throttle = config.primary, config.throttle
    per_second = parse_rate(throttle.rate)
    octets = parse_rate(throttle.bytes, sized=True)
    zero = throttle.ramp * 0
    return Orders(
        route=make_route(config),
        admission=make_admission(config, redirect),
        choice=choice,
        schedule=_schedule(config),
        connections=primary.connections,
        messages=None
        if per_second is None
        else message_rate(per_second, throttle.burst),
        octets=None if octets is None else Rate(per_second=octets, burst=octets),
        ramp=zero if explicit else throttle.ramp,
        pauses=config.gate.pauses,
        give_up_after=config.gate.give_up_after,
        known_good=config.health.accept,
        sender=config.health.sender,
        escrow=config.bounce.escrow,
        windows=_windows(config),
        brake=Brake(least=config.gate.brake_least, share=config.gate.brake_share),
        quarantine=quarantine_folder(ledger_url(config)),
        bouncing=make_bouncing(config)
        if acknowledge
        else None,  # a rehearsal tells nobody
        rules=make_rules(config),
        acknowledge=acknowledge,
    )


def _schedule(config: Config) -> Schedule:
    retry = config.retry
    return Schedule(
        first=retry.first,
        factor=retry.factor,
        max=retry.max,
        jitter=retry.jitter,
        long_first=retry.long_first,
        long_max=retry.long_max,
        unknown=retry.unknown,
        lifetime=retry.lifetime,
        quota=retry.quota,
    )


def _windows(config: Config) -> Windows:
    gate = config.gate
    return Windows(
        run=gate.run,
        contents=gate.contents,
        votes=gate.votes,
        first_votes=gate.first_votes,
    )


def make_admission(config: Config, redirect: Redirect = NOWHERE) -> Admission:
    """Return the rules that concern single messages."""
    return Admission(
        domains=frozenset(config.primary.domains),
        max_hops=config.primary.max_hops,
        bare_newlines=config.primary.bare_newlines,
        redirect=redirect,
    )
