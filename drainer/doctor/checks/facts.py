"""The facts that the doctor's probes collect, before the checks judge them."""

from datetime import datetime

from msgspec import Struct, field

from drainer.bounce.evidence.dns import DnsOutcome
from drainer.mail.reply import Lost, Reply, Stage
from drainer.mail.reply_codes import INTERMEDIATE, PERMANENT, SUCCESS, TRANSIENT
from drainer.smtp.health_check import HealthFinding


class MailExchanger(Struct, frozen=True, kw_only=True):
    """One MX record, and what DNS says about its host."""

    #: Lower case, without the dot at its end; '' = null MX.
    host: str
    rank: int
    #: Of its addresses.
    outcome: DnsOutcome = DnsOutcome.FOUND
    addresses: tuple[str, ...] = ()
    #: What it is an alias of; '' = not an alias.
    alias: str = ""
    #: Of the zone that contains it, in lower case; none = unknown.
    name_servers: frozenset[str] = frozenset()


class DomainFacts(Struct, frozen=True, kw_only=True):
    """The domain's MX records."""

    name: str
    outcome: DnsOutcome = DnsOutcome.FOUND
    detail: str = ""
    exchanges: tuple[MailExchanger, ...] = ()
    #: The host taken as the primary; '' = none is known.
    primary: str = ""
    primary_addresses: tuple[str, ...] = ()
    backups: tuple[str, ...] = ()

    #: Number of records that are not examined.
    unseen: int = 0

    @property
    def hosts(self) -> tuple[MailExchanger, ...]:
        """The records that name a host."""
        return tuple(each for each in self.exchanges if each.host)

    @property
    def own(self) -> tuple[MailExchanger, ...]:
        """The primary's records: by name, or else by an address."""
        by_name = tuple(e for e in self.hosts if e.host == self.primary)
        ours = set(self.primary_addresses)
        return by_name or tuple(
            e
            for e in self.hosts
            if e.host not in self.backups and not ours.isdisjoint(e.addresses)
        )

    @property
    def first(self) -> tuple[MailExchanger, ...]:
        """The primary's own records, else those with the lowest number."""
        lowest = min((each.rank for each in self.hosts), default=0)
        return self.own or tuple(e for e in self.hosts if e.rank == lowest)


class DialogueAnswer(Struct, frozen=True, kw_only=True):
    """The end of a question to a mail server, and at which stage."""

    stage: Stage
    answer: Reply | Lost

    @property
    def is_accepted(self) -> bool:
        """Whether the answer is 2xx (or 354)."""
        return self._category in (SUCCESS, INTERMEDIATE)

    @property
    def is_deferred(self) -> bool:
        """Whether the answer is 4xx."""
        return self._category == TRANSIENT

    @property
    def is_refused(self) -> bool:
        """Whether the answer is 5xx."""
        return self._category == PERMANENT

    @property
    def _category(self) -> int:
        return self.answer.category if isinstance(self.answer, Reply) else 0

    def __str__(self) -> str:
        """Return the answer with its stage."""
        return f"{self.stage}: {self.answer}"


class Certificate(Struct, frozen=True, kw_only=True):
    """What a server's certificate says."""

    subject: str
    names: tuple[str, ...] = ()
    #: None = unreadable.
    not_after: datetime | None = None


class BackupFacts(Struct, frozen=True, kw_only=True):
    """A backup as this host sees it."""

    host: str
    now: datetime
    #: For each address: the address, and the result of opening a session.
    reached: tuple[tuple[str, DialogueAnswer], ...] = ()
    #: Why there is no address, or why nothing was asked; '' = everything was asked.
    problem: str = ""
    offers_tls: bool = False
    #: Result of the handshake; None = there was none.
    handshake: DialogueAnswer | None = None
    certificate: Certificate | None = None
    #: Why the TLS library rejects the certificate; '' = it accepts it; None = it was
    #: not asked.
    distrust: str | None = None
    #: An existing address, and the reply to RCPT for it.
    recipient: str = ""
    known: DialogueAnswer | None = None
    #: The reply to RCPT for an address that does not exist.
    stranger: DialogueAnswer | None = None
    #: The replies to RCPT for an address of a foreign domain: with the null sender,
    #: then with a sender of the domain.
    elsewhere: tuple[DialogueAnswer, ...] = ()
    #: This host asked itself, and the backup trusts it.
    is_here: bool = False
    #: Seconds that our clock is ahead of the date in its banner; None = no date.
    ahead: float | None = None
    #: Why no test messages were sent; '' = they were.
    untested: str = ""
    gtube: DialogueAnswer | None = None
    eicar: DialogueAnswer | None = None

    @property
    def answers(self) -> bool:
        """Return whether one of its addresses gave a session."""
        return any(said.is_accepted for _, said in self.reached)


class PrimaryFacts(Struct, frozen=True, kw_only=True):
    """The primary as this host sees it."""

    #: ``host:port``; '' = none is known.
    route: str = ""
    #: Why the questions to it did not finish.
    problem: str = ""
    stages: tuple[HealthFinding, ...] = ()
    #: It has our own name.
    is_loop: bool = False
    recipient: str = ""
    #: A sender whose domain allows no other host to send, and the reply to it.
    strict_sender: str = ""
    strict: DialogueAnswer | None = None
    #: Whether DNS says that the domain is strict; None = unknown.
    is_strict: bool | None = None
    ahead: float | None = None


class Space(Struct, frozen=True, kw_only=True):
    """Space on a file system."""

    what: str
    path: str
    free_bytes: int = 0
    #: None = the number is not fixed.
    free_inodes: int | None = None
    problem: str = ""


class Trial(Struct, frozen=True, kw_only=True):
    """Whether a ledger or a source of ours works."""

    name: str
    found: str = ""
    problem: str = ""
    #: Nothing was wrong, but nothing is proven either.
    unsure: str = ""


class HostFacts(Struct, frozen=True, kw_only=True):
    """This host."""

    #: Whether a time service synchronises the kernel's clock; None = unknown.
    synchronised: bool | None = None
    #: Seconds that our clock is ahead of a server's banner, by host.
    ahead: dict[str, float] = field(default_factory=dict)
    spaces: tuple[Space, ...] = ()
    #: Open files that are allowed, and that a drain needs.
    files_allowed: int = 0
    files_needed: int = 0
    ledger: Trial = Trial(name="")
    sources: tuple[Trial, ...] = ()


class DoctorFacts(Struct, frozen=True, kw_only=True):
    """Everything."""

    domain: DomainFacts
    backups: tuple[BackupFacts, ...] = ()
    primary: PrimaryFacts = PrimaryFacts()
    here: HostFacts = HostFacts()
