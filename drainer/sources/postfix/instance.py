"""A Postfix instance, used through its own programs.

``postconf`` prints where its queue is and what it relays, ``postmap`` prints a table,
and ``postsuper`` moves its mail. Ids go through standard input, so that there may be
any number of them.
"""

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from drainer.errors import SourceError, SourceLost
from drainer.sources.postfix.transport import parse_transport
from drainer.sources.protocol import Nexthop

_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
DEFAULT_DIRECTORY = "/etc/postfix"
_NEIGHBOURS = 1000
"""Names beside a queue among which a configuration is looked for."""
_TIMEOUT = 600.0
"""Seconds; for some hundred messages on a slow disk."""
_HINT = "postfix:live works on the backup itself, as root"
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_PARAMETERS = (
    "config_directory",
    "queue_directory",
    "relay_domains",
    "relay_transport",
    "relay_recipient_maps",
    "relayhost",
    "virtual_mailbox_domains",
    "virtual_transport",
    "transport_maps",
    "myhostname",
    "parent_domain_matches_subdomains",
    "maximal_queue_lifetime",
    "bounce_queue_lifetime",
    "hash_queue_names",
    "hash_queue_depth",
    "multi_instance_directories",
)
#: Separators of the words of a list; braces keep words together.
_WORD = re.compile(r"(?:[^\s,{]|\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})+")


class RelayDomains(NamedTuple):
    """The domains of ``relay_domains``; ``.example.org`` means its subdomains."""

    domains: tuple[str, ...]
    #: Entries that cannot be listed, and why.
    unreadable: tuple[str, ...]


class PostfixInstance:
    """A Postfix instance by its configuration directory; '' = the default one."""

    def __init__(self, directory: str = "") -> None:
        """Ask where its parts are; raises SourceError when there is none."""
        self._parameters = self._ask(directory)
        #: Its URL, with the name that Postfix uses.
        self.directory = self._parameters["config_directory"]
        self.queue_directory = self._parameters["queue_directory"]

    def _ask(self, directory: str) -> dict[str, str]:
        chosen = ("-c", directory) if directory else ()
        done = _run(("postconf", *chosen, "-x", *_PARAMETERS))
        lines = (line.partition(" =") for line in done.stdout.splitlines())
        found = {name: value.strip() for name, _, value in lines}
        if done.returncode or not found.get("queue_directory"):
            message = f"postconf does not know this Postfix: {_said(done)}"
            hint = "name its configuration directory: postfix:live=/etc/postfix"
            raise SourceError(message, hint=hint)
        return found

    @property
    def others(self) -> list[str]:
        """The configuration directories of the host's other instances."""
        return _words(self._parameters["multi_instance_directories"])

    def hash_depth(self, queue: str) -> int:
        """Return how many directories are between a queue and its files."""
        depth = self._parameters["hash_queue_depth"]
        is_hashed = queue in _words(self._parameters["hash_queue_names"])
        return int(depth) if is_hashed and depth.isdigit() else 0

    # --- what it relays

    def relay_domains(self) -> RelayDomains:
        """Return the domains of ``relay_domains``, tables and files included."""
        return self._domains("relay_domains")

    def _domains(self, parameter: str) -> RelayDomains:
        """Return the domains of a list; a table of mailboxes may name some."""
        domains: dict[str, None] = {}
        unreadable = []
        below = parameter in _words(
            self._parameters["parent_domain_matches_subdomains"]
        )
        for word in _words(self._parameters[parameter]):
            try:
                for name in self._expand(word):
                    domain = name.lower().rstrip(".")
                    if "@" in domain:
                        continue
                    domains[domain] = None
                    if below and not domain.startswith("."):
                        domains["." + domain] = None
            except (OSError, ValueError, SourceError) as error:
                unreadable.append(f"{word} ({error})")
        return RelayDomains(tuple(domains), tuple(unreadable))

    def _expand(self, word: str) -> Iterator[str]:
        """Yield the domains that a word of a list means (match_list(3))."""
        if word.startswith("!"):
            raise ValueError("it excludes")
        if word.startswith("/"):
            text = Path(word).read_text("utf-8")
            for line in text.splitlines():
                if not line.startswith("#"):
                    for each in _words(line):
                        yield from self._expand(each)
        elif ":" in word:
            yield from self._keys(word.removeprefix("proxy:"))
        else:
            yield word

    def _keys(self, table: str) -> Iterator[str]:
        done = _run(("postmap", "-c", self.directory, "-s", table))
        if done.returncode:
            raise ValueError(_said(done))
        for line in done.stdout.splitlines():
            yield line.partition("\t")[0].strip()

    def relay_recipients(self) -> Iterator[str]:
        """Yield the addresses of ``relay_recipient_maps``, where a table lists them."""
        for word in _words(self._parameters["relay_recipient_maps"]):
            with suppress(ValueError):  # others can only be asked
                keys = self._keys(word.removeprefix("proxy:"))
                yield from (key for key in keys if not key.startswith("@"))

    @property
    def hostname(self) -> str:
        """Its name, as in EHLO."""
        return self._parameters["myhostname"]

    def nexthops(self) -> dict[Nexthop, list[str]]:
        """Return the domains that another server delivers, by their next hop.

        They are those of ``relay_domains``, and those of ``virtual_mailbox_domains``
        that have no transport of this host. Raises SourceError when a list or a table
        cannot be read.
        """
        transport = self._parameters["relay_transport"]
        if relayhost := self._parameters["relayhost"]:  # without a next hop of its own
            transport = transport if ":" in transport else f"{transport}:{relayhost}"
        found: dict[Nexthop, list[str]] = {}
        for domain in self._readable("relay_domains"):
            found.setdefault(self._nexthop(domain, transport), []).append(domain)
        transport = self._parameters["virtual_transport"]
        for domain in self._readable("virtual_mailbox_domains"):
            nexthop = self._nexthop(domain, transport)
            if nexthop.host or not nexthop.doubt:
                found.setdefault(nexthop, []).append(domain)
        return found

    def _readable(self, parameter: str) -> tuple[str, ...]:
        listed = self._domains(parameter)
        if listed.unreadable:
            message = f"cannot read {parameter}: {'; '.join(listed.unreadable)}"
            raise SourceError(message, hint="write the configuration by hand")
        return listed.domains

    def _nexthop(self, domain: str, default: str) -> Nexthop:
        """Return the next hop of a domain, looked up as transport(5) says."""
        for table in _words(self._parameters["transport_maps"]):
            for key in _transport_keys(domain):
                if entry := self._look_up(table, key):
                    return self._with_path(parse_transport(entry, default))
        return self._with_path(parse_transport(default))

    def address_transports(self) -> Iterator[tuple[str, str]]:
        """Yield addresses that have a transport of their own, each with its table.

        A table that cannot be listed has no address here: '' stands for any.
        """
        for table in _words(self._parameters["transport_maps"]):
            try:
                keys = list(self._keys(table.removeprefix("proxy:")))
            except ValueError:
                yield table, ""
            else:
                yield from ((table, key) for key in keys if "@" in key)

    def _with_path(self, nexthop: Nexthop) -> Nexthop:
        """Complete the path of a Unix socket: lmtp(8) works in the queue directory."""
        if not nexthop.host.startswith("unix:"):
            return nexthop
        path = nexthop.host.removeprefix("unix:")
        if not path.startswith("/") or self._is_lmtp_chrooted:
            path = f"{self.queue_directory}/{path.lstrip('/')}"
        return nexthop._replace(host=f"unix:{path}")

    @cached_property
    def _is_lmtp_chrooted(self) -> bool:
        asked = ("postconf", "-c", self.directory, "-F", "lmtp/unix/chroot")
        return _run(asked).stdout.rpartition("=")[2].strip() == "y"

    def _look_up(self, table: str, key: str) -> str:
        """Return a table's entry; '' = it has none."""
        name = table.removeprefix("proxy:")
        done = _run(("postmap", "-c", self.directory, "-q", key, name))
        if done.returncode and done.stderr:
            message = f"cannot read {table}: {_said(done)}"
            raise SourceError(message, hint="write the configuration by hand")
        return done.stdout.strip()

    # --- how long it keeps mail

    def lifetime(self, *, null_sender: bool) -> timedelta:
        """Return the age from which a failing attempt is the last one."""
        name = "bounce_queue_lifetime" if null_sender else "maximal_queue_lifetime"
        match = re.fullmatch(r"(\d{1,9})\s*([smhdw]?)", self._parameters[name])
        if match is None:
            message = f"{name} = {self._parameters[name]!r} is not a valid time"
            raise SourceError(message, hint="see postconf(5)")
        return timedelta(**{_UNITS[match[2] or "d"]: int(match[1])})

    # --- its mail

    def move(
        self, option: str, ids: Iterable[str], queues: Sequence[str], *, keep: int
    ) -> None:
        """Let postsuper hold (-h), release (-H) or delete (-d) what is in ``queues``.

        It skips absent messages. The descriptor ``keep`` stays open in postsuper, with
        its lock: it may live longer than this process. Raises SourceError.
        """
        names = "".join(f"{name}\n" for name in ids)
        if not names:
            return
        command = ("postsuper", "-c", self.directory, option, "-", *queues)
        done = _run(command, names, keep=(keep,))
        if done.returncode:
            raise SourceError(f"postsuper {option} failed: {_said(done)}", hint=_HINT)


def _transport_keys(domain: str) -> Iterator[str]:
    """Yield what transport(5) looks up for a domain, the most specific key first."""
    name = domain.lstrip(".")
    yield domain
    while "." in name:
        name = name.partition(".")[2]
        yield f".{name}"
    yield "*"


def instances() -> Iterator[PostfixInstance]:
    """Yield the instances of this host: the one in MAIL_CONFIG, the default, others."""
    named = [DEFAULT_DIRECTORY] if "MAIL_CONFIG" in os.environ else []
    waiting, seen = ["", *named], set()
    while waiting:
        try:
            found = PostfixInstance(waiting.pop(0))
        except SourceError:
            continue
        if found.directory not in seen:
            seen.add(found.directory)
            waiting += found.others
            yield found


def instance_at(queue_directory: str) -> PostfixInstance | None:
    """Return the instance of this host that uses a queue directory, if any.

    Not every instance is registered: ``postfix -c`` takes any directory. So drainer
    also looks for a ``main.cf`` beside the queue, and in ``/etc/postfix*``.
    """
    for each in instances():
        if _has_queue(each, queue_directory):
            return each
    for place in _configurations(Path(queue_directory).parent):
        with suppress(SourceError):
            found = PostfixInstance(str(place))
            if _has_queue(found, queue_directory):
                return found
    return None


def _has_queue(instance: PostfixInstance, queue_directory: str) -> bool:
    with suppress(OSError):
        return Path(instance.queue_directory).samefile(queue_directory)
    return False


def _configurations(above: Path) -> Iterator[Path]:
    """Yield folders with a ``main.cf`` that only root can change."""
    with suppress(OSError), os.scandir(above) as entries:
        beside = [Path(entry.path) for entry in islice(entries, _NEIGHBOURS)]
        for place in (above, *sorted(beside), *sorted(Path("/etc").glob("postfix*"))):
            with suppress(OSError):
                if all(map(_is_roots, (place, place / "main.cf"))):
                    yield place


def _is_roots(path: Path) -> bool:
    found = path.lstat()
    others_may_write = stat.S_IWGRP | stat.S_IWOTH
    return found.st_uid == 0 and not found.st_mode & others_may_write


def _words(text: str) -> list[str]:
    return _WORD.findall(text)


def _run(
    command: Sequence[str], text: str = "", *, keep: tuple[int, ...] = ()
) -> "subprocess.CompletedProcess[str]":
    """Run a program of Postfix, without our environment."""
    program = shutil.which(command[0], path=_PATH)
    if program is None:
        raise SourceError(f"{command[0]} is not installed here", hint=_HINT)
    environment = {"PATH": _PATH, "LC_ALL": "C"}
    if "MAIL_CONFIG" in os.environ:
        environment["MAIL_CONFIG"] = os.environ["MAIL_CONFIG"]
    try:
        return subprocess.run(  # noqa: S603 - a fixed program, no shell
            [program, *command[1:]],
            check=False,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            env=environment,
            pass_fds=keep,
            start_new_session=True,  # Ctrl-C is for the drain
        )
    except subprocess.TimeoutExpired:
        message = f"{command[0]} did not end within {_TIMEOUT:.0f} s"
        raise SourceLost(message, hint="check its disk") from None


def _said(done: "subprocess.CompletedProcess[str]") -> str:
    return " ".join((done.stderr.splitlines() or ["no answer"])[-1].split())[:300]
