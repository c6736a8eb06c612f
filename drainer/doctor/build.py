"""Build the doctor's settings from a Config and the operator's request."""

from collections.abc import Sequence
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from drainer.bounce.build import make_evidence
from drainer.config import Config, own_hostname
from drainer.config.build.paths import ledger_url, quarantine_folder
from drainer.config.build.routes import make_probe, make_route
from drainer.config.build.spools import make_sources
from drainer.config.host import split_host
from drainer.doctor import probe_backup as backups
from drainer.doctor import probe_host
from drainer.doctor import probe_primary as primary
from drainer.doctor.probe_dns import NamedHosts
from drainer.doctor.run import DoctorSettings
from drainer.errors import UsageError
from drainer.ledger.write_probe import try_writing
from drainer.mail.envelope import is_ascii
from drainer.mail.mailbox import ascii_domain
from drainer.policy.bounce.facts import parse_address
from drainer.runtime import databases
from drainer.smtp.route import LMTP, SMTP_PORT
from drainer.sources.protocol import Source

STRICT_SENDER = "drainer-doctor@example.com"
"""Its domain publishes ``v=spf1 -all`` and is reserved (RFC 2606 3)."""


class DoctorRequest(Struct, frozen=True, kw_only=True):
    """What the operator asks the doctor to check."""

    domain: str
    #: Each is HOST[:PORT].
    backups: Sequence[str] = ()
    #: An existing address of the domain; '' = one of ``[health] accept``.
    recipient: str = ""
    strict_sender: str = STRICT_SENDER
    #: The named backups get the test messages.
    send_tests: bool = False


def make_examination(config: Config, asked: DoctorRequest) -> DoctorSettings:
    """Return what the doctor will check; UsageError for an invalid request."""
    domain = _domain(asked.domain)
    config = _drop_lmtp(config)
    primary_host = _normal(config.primary.host)
    config = _add_own_name(config, domain)
    named = dict(map(_host_port, asked.backups))
    recipient = _recipient(config, asked, domain)
    if asked.send_tests and not named:
        message = "--send-tests sends nothing to hosts that only DNS names"
        raise UsageError(message, hint="name them with --backup HOST")
    if asked.send_tests and not recipient:
        message = "--send-tests needs a recipient for the test messages"
        raise UsageError(message, hint="give --recipient ADDRESS, e.g. your own")
    servers = make_evidence(config).servers
    probe = make_probe(config)
    known = probe.accept or ((recipient,) if recipient else ())
    return DoctorSettings(
        named=NamedHosts(domain=domain, primary=primary_host, backups=tuple(named)),
        servers=servers,
        ports={host: port for host, port in named.items() if port is not None},
        backups=backups.BackupProbe(
            domain=domain,
            helo=config.primary.helo,
            sender=config.health.sender,
            recipient=recipient,
            tested=frozenset(named) if asked.send_tests else frozenset(),
        ),
        primary=primary.PrimaryProbe(
            route=make_route(config),
            probe=replace(probe, accept=known, reject_domain=domain),
            servers=servers,
            recipient=recipient,
            strict_sender=_strict_sender(asked.strict_sender),
        ),
        places=_places(config),
    )


def _domain(text: str) -> str:
    domain = ascii_domain(text)
    if "." not in domain or parse_address(domain) is not None:
        message = f"{text[:60]!r} is not a valid domain"
        raise UsageError(message, hint="e.g. drainer doctor example.org")
    return domain


def _drop_lmtp(config: Config) -> Config:
    """Name no primary if [primary] speaks LMTP: the doctor asks what DNS names."""
    if config.primary.protocol != LMTP:
        return config
    known = {"protocol": "smtp", "host": "", "hosts": (), "port": SMTP_PORT}
    return config.model_copy(
        update={"primary": config.primary.model_copy(update=known)}
    )


def _add_own_name(config: Config, domain: str) -> Config:
    """Look our name up only once: without working DNS it takes long.

    Without a primary, the route goes to the domain until DNS names a host.
    """
    known = {
        "helo": config.primary.helo or own_hostname(),
        "host": config.primary.host or domain,
    }
    primary = config.primary.model_copy(update=known)
    return config.model_copy(update={"primary": primary})


def _host_port(text: str) -> tuple[str, int | None]:
    host, port = split_host(text)
    return _normal(host), port


def _normal(host: str) -> str:
    return host.lower().rstrip(".")


def _recipient(config: Config, asked: DoctorRequest, domain: str) -> str:
    """Return an address of the domain, also when it has the domain's other spelling."""
    known = (asked.recipient,) if asked.recipient else config.health.accept
    for address in known:
        local, _, host = address.rpartition("@")
        if ascii_domain(host) == domain and is_ascii(local):
            return f"{local}@{domain}"
    if not asked.recipient:
        return ""
    raise UsageError(
        f"--recipient {asked.recipient[:60]!r} is not an ASCII address of {domain}",
        hint=f"give an address of {domain} that exists",
    )


def _strict_sender(address: str) -> str:
    if is_ascii(address):
        return address
    message = f"--spf-sender {address[:60]!r} is not ASCII"
    raise UsageError(message, hint="give a sender that needs no SMTPUTF8")


def _places(config: Config) -> probe_host.HostPlaces:
    url = ledger_url(config)
    folders = {"quarantine": quarantine_folder(url)}
    if url.get_backend_name() == "sqlite":
        folders = {"ledger": folders["quarantine"].parent, **folders}
    return probe_host.HostPlaces(
        ledger=databases.safe_url(url),
        write=partial(try_writing, url),
        folders=folders,
        connections=config.primary.connections,
        sources={name: partial(_source, config, name) for name in config.sources},
    )


def _source(config: Config, name: str) -> Source:
    return make_sources(config, [name], [])[0]
