"""From a Config to the objects that do the work."""

import hashlib
import os
import re
import tomllib
from collections.abc import Iterable, Sequence
from ipaddress import ip_network
from pathlib import Path

from sqlalchemy.engine import URL

from drainer.config import Config, own_hostname
from drainer.errors import UsageError
from drainer.evidence import Servers, Settings
from drainer.evidence.signing import sign
from drainer.ledger import engine
from drainer.ledger.sending import Waits
from drainer.ledger.waiting import Brake
from drainer.mail.envelope import domain_of
from drainer.orders import Bouncing, Orders
from drainer.policy.admit import Admission
from drainer.policy.bounce_gate import Own
from drainer.policy.bounce_limits import Limits
from drainer.policy.detector import Windows
from drainer.policy.facts import Trust
from drainer.policy.redirect import Redirect
from drainer.policy.rules import Rule, rules_of
from drainer.policy.schedule import Schedule
from drainer.policy.select import Choice
from drainer.policy.throttle import Rate, message_rate, parse_rate
from drainer.reporting import LIMITS, Posting, Signing
from drainer.smtp import Login, Route, Timeouts
from drainer.smtp.check import Probe
from drainer.sources import Source, Taking
from drainer.sources.registry import open_source

LedgerURL = URL
ALL, NOWHERE = Choice(), Redirect()
MAX_HOST, MAX_PORT = 253, 65535
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = rf"{_LABEL}(?:\.{_LABEL})*\.?"
_HOST_PORT = re.compile(
    rf"(?:\[([0-9A-Fa-f:.%]+)\]|({_NAME}|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?=$)))"
    r"(?::([0-9]{1,5}))?"
)


def make_route(config: Config) -> Route:
    """Return the way to the primary; UsageError when none is named."""
    primary = config.primary
    if not primary.host:
        message = "no primary is named"
        raise UsageError(message, hint="give --to HOST[:PORT], or set [primary] host")
    login = None
    if primary.username:
        login = Login(username=primary.username, password=_password(config))
    return Route(
        host=primary.host,
        port=primary.port,
        helo=primary.helo or own_hostname(),
        tls="required" if login else primary.tls,
        verify=primary.verify or login is not None,
        login=login,
        timeouts=_timeouts(config),
        max_messages=primary.max_messages,
        max_age=primary.max_age.total_seconds(),
        max_recipients=primary.max_recipients,
        bare_newlines=primary.bare_newlines,
    )


def _timeouts(config: Config) -> Timeouts:
    primary = config.primary
    command = primary.command_timeout.total_seconds()
    return Timeouts(
        connect=primary.connect_timeout.total_seconds(),
        banner=primary.banner_timeout.total_seconds(),
        ehlo=primary.banner_timeout.total_seconds(),
        mail=command,
        rcpt=command,
        data=primary.data_timeout.total_seconds(),
        body=primary.body_timeout.total_seconds(),
        dot=primary.dot_timeout.total_seconds(),
        idle=primary.idle_timeout.total_seconds(),
    )


def _password(config: Config) -> str:
    primary = config.primary
    if not primary.password_file:
        return primary.password.get_secret_value()
    try:
        lines = Path(primary.password_file).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        message = f"the password file cannot be read: {error}"
        raise UsageError(message) from None
    if not lines or not lines[0]:
        message = f"the password file {primary.password_file} is empty"
        raise UsageError(message)
    return lines[0]


def split_host(text: str) -> tuple[str, int | None]:
    """Return host and port of HOST, HOST:PORT or [IPV6]:PORT; UsageError if bad."""
    match = _HOST_PORT.fullmatch(text.strip())
    host, port = (match[1] or match[2], match[3]) if match else ("", None)
    if not host or len(host) > MAX_HOST or (port and not 0 < int(port) <= MAX_PORT):
        message = f"{text[:60]!r} is no host"
        raise UsageError(message, hint="write HOST, HOST:PORT or [IPv6]:PORT")
    return host, int(port) if port else None


def make_probe(config: Config) -> Probe:
    """Return what the health check asks."""
    domains = config.primary.domains
    known = (domain_of(address) for address in config.health.accept)
    return Probe(
        accept=config.health.accept,
        reject=bool(config.health.reject),
        reject_domain=domains[0].lstrip(".") if domains else next(known, ""),
        sender=config.health.sender,
    )


def with_domains(config: Config, sources: Iterable[Source]) -> Config:
    """Let a server that runs name the primary's domains when nobody else has.

    Raises UsageError when it cannot.
    """
    taking = [source for source in sources if isinstance(source, Taking)]
    if config.primary.domains or not taking:
        return config
    domains = dict.fromkeys(domain for source in taking for domain in source.domains())
    primary = config.primary.model_copy(update={"domains": tuple(domains)})
    return config.model_copy(update={"primary": primary})


def make_rules(config: Config) -> tuple[Rule, ...]:
    """Return the operator's own rules; UsageError when the file is wrong."""
    return read_rules(Path(config.primary.rules)) if config.primary.rules else ()


def read_rules(path: Path) -> tuple[Rule, ...]:
    """Read a file of rules; UsageError says what is wrong with it, and where."""
    try:
        rows = tomllib.loads(path.read_text("utf-8")).get("rule", [])
        if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
            message = "rules are [[rule]] tables"
            raise ValueError(message)  # noqa: TRY301 - told like the others
        return rules_of(rows)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        message = f"{path}: {reason}"
        hint = "the grammar stands in docs/refusals.md; `drainer classify --check FILE`"
        raise UsageError(message, hint=hint) from None


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


def make_trust(config: Config) -> Trust:
    """Return what the operator says about senders."""
    bounce = config.bounce
    return Trust(
        relay_domains=frozenset((*config.primary.domains, *bounce.relay_domains)),
        trusted_networks=tuple(map(ip_network, bounce.trusted_networks)),
        weak_providers=frozenset(bounce.weak_providers),
    )


def make_bouncing(config: Config) -> Bouncing | None:
    """Return what the bounce gate goes by; None when nobody is to be told."""
    if not config.bounce.send:
        return None
    return Bouncing(
        settings=make_evidence(config),
        trust=make_trust(config),
        own=make_own(config),
        limits=Limits(),
        posting=make_posting(config),
    )


def make_posting(config: Config) -> Posting:
    """Return how reports leave; UsageError for no host, or a key that is unreadable."""
    bounce = config.bounce
    per_second = parse_rate(bounce.rate)
    return Posting(
        via=None if bounce.via == "mx" else make_via(config),
        own=make_own(config),
        servers=make_evidence(config).servers,
        waits=Waits(settle=bounce.settle, retry=bounce.retry),
        rate=None if per_second is None else message_rate(per_second, None),
        signing=_signing(config),
    )


def make_via(config: Config) -> Route:
    """Return the relay that takes reports; UsageError when it is none."""
    if config.bounce.via == "mx":
        message = '[bounce] via = "mx" is for reports alone'
        raise UsageError(message, hint="name a server that takes mail: HOST[:PORT]")
    host, port = split_host(config.bounce.via)
    return Route(
        host=host, port=port or 25, helo=make_own(config).hostname, timeouts=LIMITS
    )


def _signing(config: Config) -> Signing | None:
    bounce = config.bounce
    if not bounce.dkim_key_file:
        return None
    try:
        key = Path(bounce.dkim_key_file).read_bytes()
    except OSError as error:
        message = f"the DKIM key cannot be read: {error}"
        raise UsageError(message, hint="see [bounce] dkim_key_file") from None
    signing = Signing(selector=bounce.dkim_selector, key=key)
    domain = make_own(config).hostname
    sign(_PROBE, domain=domain, selector=signing.selector, key=key)
    return signing


_PROBE = b"From: probe\r\n\r\n"
"""What shows before the drain that a key signs."""


def make_evidence(config: Config) -> Settings:
    """Return how a sender's evidence is looked for."""
    bounce = config.bounce
    return Settings(
        servers=Servers(
            addresses=bounce.dns_servers,
            port=bounce.dns_port,
            timeout=bounce.dns_timeout.total_seconds(),
            budget=4 * bounce.dns_timeout.total_seconds(),
        ),
        authserv_ids=frozenset(bounce.authserv_ids),
        backup_hosts=frozenset(bounce.backup_hosts),
        hostname=make_own(config).hostname,
    )


def make_own(config: Config) -> Own:
    """Return who we are to a sender."""
    hostname = config.primary.helo or own_hostname()
    return Own(hostname=hostname, reporter=f"MAILER-DAEMON@{hostname}")


def make_sources(
    config: Config, names: list[str], queues: Sequence[str], *, listing: bool = False
) -> list[Source]:
    """Open the sources: URLs, paths, or names of ``[sources.NAME]`` tables.

    ``queues`` are for those that can read others than usual; ``listing`` shows also
    what a drain leaves alone unless it is asked for.
    """
    found: dict[str, Source] = {}
    for name in names:
        options: dict[str, object] = {}
        url = name
        if name in config.sources:
            section = config.sources[name]
            url, options = section.url, dict(section.model_extra or {})
        source = open_source(url, options=options, listing=listing, queues=queues)
        found[source.url] = source
    return list(found.values())


def ledger_url(config: Config) -> URL:
    """Return where the ledger lies."""
    if config.ledger.url:
        return engine.parse_url(config.ledger.url)
    state_home = os.environ.get("XDG_STATE_HOME", "")
    path = engine.default_path(state_home, root=os.geteuid() == 0)
    return engine.parse_url(str(path))


def fresh_rehearsal(url: URL) -> URL:
    """Return an empty ledger for a rehearsal, beside the real one."""
    if not engine.is_file(url):
        message = "--rehearse needs a ledger of its own"
        raise UsageError(message, hint="give --ledger PATH for it")
    for suffix in ("", "-wal", "-shm"):
        Path(f"{url.database}.rehearsal{suffix}").unlink(missing_ok=True)
    return url.set(database=f"{url.database}.rehearsal")


def quarantine_folder(url: URL) -> Path:
    """Return where copies are kept of what becomes final without being delivered.

    Each ledger has a folder of its own: another's copies are not its to remove.
    """
    if engine.is_file(url):
        return Path(f"{url.database}.quarantine")
    state_home = os.environ.get("XDG_STATE_HOME", "")
    path = engine.default_path(state_home, root=os.geteuid() == 0)
    name = f"{url.get_backend_name()} {url.host} {url.port} {url.database}"
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return path.parent / f"quarantine-{digest}"


def lock_folder(url: URL) -> Path:
    """Return the folder of the owners' locks."""
    if engine.is_file(url):
        return Path(f"{url.database}.locks")
    state_home = os.environ.get("XDG_STATE_HOME", "")
    path = engine.default_path(state_home, root=os.geteuid() == 0)
    return path.parent / "locks"
