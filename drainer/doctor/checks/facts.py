"""What the doctor's edges found out, before anybody judges it."""

import enum
from dataclasses import field
from datetime import datetime

from drainer.mail.reply import Lost, Reply, Stage
from drainer.runtime.values import dataclass

_SUCCESS, _GO_AHEAD, _TRANSIENT, _PERMANENT = 2, 3, 4, 5


class DnsStatus(enum.StrEnum):
    """How DNS answered."""

    FOUND = "found"
    ABSENT = "absent"
    NXDOMAIN = "nxdomain"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class MailExchanger:
    """One MX record, and what DNS says of its host."""

    #: Lower case, without the dot at its end; '' = null MX.
    host: str
    rank: int
    #: Of its addresses.
    told: DnsStatus = DnsStatus.FOUND
    addresses: tuple[str, ...] = ()
    #: What it is an alias of; '' = it is none.
    alias: str = ""
    #: Of the zone that holds it, lower case; none = nobody knows.
    name_servers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainFacts:
    """The domain's MX records."""

    name: str
    told: DnsStatus = DnsStatus.FOUND
    detail: str = ""
    exchanges: tuple[MailExchanger, ...] = ()
    #: The host that is taken for the primary; '' = none is known.
    primary: str = ""
    primary_addresses: tuple[str, ...] = ()
    backups: tuple[str, ...] = ()

    #: Records beyond those that are looked at.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DialogueAnswer:
    """How a question to a mail server ended, and at which stage."""

    stage: Stage
    answer: Reply | Lost

    @property
    def is_accepted(self) -> bool:
        """Whether the answer is 2xx (or 354)."""
        return self._category in (_SUCCESS, _GO_AHEAD)

    @property
    def is_deferred(self) -> bool:
        """Whether the answer is 4xx."""
        return self._category == _TRANSIENT

    @property
    def is_refused(self) -> bool:
        """Whether the answer is 5xx."""
        return self._category == _PERMANENT

    @property
    def _category(self) -> int:
        return self.answer.category if isinstance(self.answer, Reply) else 0

    def __str__(self) -> str:
        """Return the answer with its stage."""
        return f"{self.stage}: {self.answer}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a server's certificate says."""

    subject: str
    names: tuple[str, ...] = ()
    #: None = unreadable.
    not_after: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupFacts:
    """A backup as it is seen from here."""

    host: str
    now: datetime
    #: Address and how opening a session there ended, for each address.
    reached: tuple[tuple[str, DialogueAnswer], ...] = ()
    #: Why there is no address, or nothing was asked; '' = all was.
    problem: str = ""
    offers_tls: bool = False
    #: How the handshake ended; None = there was none.
    handshake: DialogueAnswer | None = None
    certificate: Certificate | None = None
    #: Why the TLS library does not believe the certificate; '' = it does; None = it
    #: was not asked.
    distrust: str | None = None
    #: An address that exists, and what RCPT said about it.
    recipient: str = ""
    known: DialogueAnswer | None = None
    #: What RCPT said about an address that does not exist.
    stranger: DialogueAnswer | None = None
    #: What RCPT said about an address elsewhere: for the null sender, then for one
    #: of the domain.
    elsewhere: tuple[DialogueAnswer, ...] = ()
    #: This host asked itself: it is trusted there.
    is_here: bool = False
    #: Seconds that our clock is ahead of the date in its banner; None = it has none.
    ahead: float | None = None
    #: Why no test messages were sent; '' = they were.
    untested: str = ""
    gtube: DialogueAnswer | None = None
    eicar: DialogueAnswer | None = None

    @property
    def answers(self) -> bool:
        """Whether a session stood at one of its addresses."""
        return any(said.is_accepted for _, said in self.reached)


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthStage:
    """One line of the ordinary health check."""

    stage: str
    grade: str
    reply: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrimaryFacts:
    """The primary as it is seen from here."""

    #: ``host:port``; '' = none is known.
    route: str = ""
    #: Why it was not asked to the end.
    problem: str = ""
    stages: tuple[HealthStage, ...] = ()
    #: It bears our own name.
    is_loop: bool = False
    recipient: str = ""
    #: A sender whose domain lets nobody else send, and what was said about it.
    strict_sender: str = ""
    strict: DialogueAnswer | None = None
    #: Whether DNS says that the domain is strict; None = nobody knows.
    is_strict: bool | None = None
    ahead: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Room on a file system."""

    what: str
    path: str
    free_bytes: int = 0
    #: None = it has no fixed number of them.
    free_inodes: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Whether something of ours works: a ledger, a source."""

    name: str
    found: str = ""
    problem: str = ""
    #: Nothing was wrong, and nothing proven either.
    unsure: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """This host."""

    #: Whether the kernel's clock is kept by a time service; None = nobody knows.
    synchronised: bool | None = None
    #: Seconds that our clock is ahead of a server's banner, by host.
    ahead: dict[str, float] = field(default_factory=dict)
    spaces: tuple[Space, ...] = ()
    #: Open files that are allowed, and that a drain needs.
    files_allowed: int = 0
    files_needed: int = 0
    ledger: Trial = Trial(name="")
    sources: tuple[Trial, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorFacts:
    """Everything."""

    domain: DomainFacts
    backups: tuple[BackupFacts, ...] = ()
    primary: PrimaryFacts = PrimaryFacts()
    here: HostFacts = HostFacts()
