"""Build the bounce decider and the report sender from the [bounce] section."""

from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path

from drainer.bounce.decider import BounceDecider
from drainer.bounce.evidence.dkim_sign import sign
from drainer.bounce.evidence.request import DnsServers, EvidenceSettings
from drainer.bounce.relay import LIMITS
from drainer.bounce.reports import DkimKey, DsnSettings
from drainer.bounce.settings import BounceSettings
from drainer.config import Config, own_hostname
from drainer.config.build.routes import login_of
from drainer.config.host import split_host
from drainer.config.route_section import route_configs
from drainer.errors import UsageError
from drainer.ledger.reports.outbox import ReportDelays
from drainer.mail.mailbox import ascii_domain
from drainer.policy.bounce.facts import TrustSettings
from drainer.policy.bounce.limits import ReportLimits
from drainer.policy.pacing.rate import message_rate, parse_rate
from drainer.runtime.private_files import read_private
from drainer.smtp.route import Route


def make_trust(config: Config) -> TrustSettings:
    """Return what the operator configured about senders."""
    bounce = config.bounce
    routed = (d for each in route_configs(config) for d in each.primary.domains)
    domains = (*routed, *bounce.relay_domains)
    return TrustSettings(
        relay_domains=_names(domains),
        trusted_networks=tuple(map(ip_network, bounce.trusted_networks)),
        trusted_spf_domains=_names(bounce.trusted_spf_domains),
    )


def _names(domains: Iterable[str]) -> frozenset[str]:
    """Return domains as DNS has them; ``.example.org`` is example.org here."""
    names = [each.removeprefix(".") for each in domains]
    return frozenset(map(ascii_domain, names)) - {""}


def make_bouncing(config: Config) -> BounceSettings | None:
    """Return the bounce settings; None if no sender gets a report."""
    if not config.bounce.send:
        return None
    return BounceSettings(
        evidence=make_evidence(config),
        decider=config.bounce.values_for(
            BounceDecider,
            trust=make_trust(config),
            hostname=hostname_of(config),
            limits=config.bounce.values_for(ReportLimits),
        ),
        dns_budget=config.bounce.dns_run_budget,
        posting=make_posting(config),
    )


def make_posting(config: Config) -> DsnSettings:
    """Return how reports are sent; UsageError for no host or an unreadable key."""
    bounce = config.bounce
    per_second = parse_rate(bounce.rate)
    return bounce.values_for(
        DsnSettings,
        via=None if bounce.via == "mx" else make_via(config),
        hostname=hostname_of(config),
        waits=bounce.values_for(ReportDelays),
        rate=None if per_second is None else message_rate(per_second, None),
        signing=_signing(config),
    )


def make_via(config: Config) -> Route:
    """Return the relay that takes reports; UsageError if it is not valid."""
    bounce = config.bounce
    if bounce.via == "mx":
        message = '[bounce] via = "mx" works for reports only'
        raise UsageError(message, hint="name a server that accepts mail: HOST[:PORT]")
    try:
        host, port = split_host(bounce.via)
    except UsageError as error:
        raise UsageError(f"[bounce] via: {error}", hint=error.hint) from None
    password = bounce.via_password.get_secret_value()
    login = login_of(bounce.via_username, bounce.via_password_file, password)
    return Route(
        host=host,
        port=port or 25,
        helo=hostname_of(config),
        tls=bounce.via_tls,
        verify=bounce.via_verify,
        login=login,
        timeouts=LIMITS,
    )


def _signing(config: Config) -> DkimKey | None:
    bounce = config.bounce
    if not bounce.dkim_key_file:
        return None
    try:
        key = read_private(Path(bounce.dkim_key_file))
    except OSError as error:
        message = f"cannot read the DKIM key: {error}"
        raise UsageError(message, hint="see [bounce] dkim_key_file") from None
    selector = bounce.dkim_selector
    sign(_PROBE, domain=hostname_of(config), selector=selector, key=key)
    return DkimKey(selector=selector, key=key)


_PROBE = b"From: probe\r\n\r\n"
"""A test message that shows, before the drain, that a key signs."""


def make_evidence(config: Config) -> EvidenceSettings:
    """Return how a sender's evidence is gathered."""
    bounce = config.bounce
    return bounce.values_for(
        EvidenceSettings,
        servers=bounce.values_for(
            DnsServers,
            prefix="dns_",
            addresses=bounce.dns_servers,
            budget=4 * bounce.dns_timeout.total_seconds(),
        ),
        hostname=hostname_of(config),
        private=bounce.mx_private,
    )


def hostname_of(config: Config) -> str:
    """Return the name of this host."""
    return config.primary.helo or own_hostname()
