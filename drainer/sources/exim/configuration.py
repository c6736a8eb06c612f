"""What an Exim configuration says of the primaries, asked from Exim itself.

``exim -bP`` prints lists, routers and transports, and ``exim -be`` evaluates what is in
them (Exim's specification, "The Exim command line"). drainer asks no DNS for this.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from drainer.errors import SourceError
from drainer.sources.exim.router import (
    Options,
    RouteRule,
    expand_value,
    nexthop_of,
    parse_route_data,
    parse_route_list,
    split_list,
)
from drainer.sources.protocol import Nexthop

RELAYED = "+relay_to_domains"
"""The list that Exim's default configuration has for a backup, and Debian's too."""
ANY_NAME = "any-name"
"""Stands for a subdomain in questions about all subdomains."""
_PROGRAMS = "/usr/sbin:/usr/local/sbin:/usr/exim/bin"
_TIMEOUT = 600.0
_HINT = "drainer asks the Exim of this host; or write the configuration by hand"
_DOMAIN = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})+")
_FILE = re.compile(
    r"(?:partial[0-9]*(?:-|\([^)]*\)))?(lsearch|n?wildlsearch|dsearch)[^;]*;\s*(.+)"
)
_NO_PRIMARY = ("*", "@", "@[]", "localhost")
"""Items of lists that name no domain of a primary."""
_NAME = re.compile(r"\$\{domain(?:_data)?\}|\$domain(?:_data)?\b")
_OF_A_MESSAGE = re.compile(r"\$\{?(?:local_part|sender|address_data|host|[0-9])")
_CONDITIONS = (
    "condition",
    "local_parts",
    "senders",
    "require_files",
    "check_local_user",
)


class EximConfiguration:
    """An Exim configuration file, as the Exim of this host reads it."""

    def __init__(self, file: str) -> None:
        """Read it; raises SourceError when Exim cannot."""
        self.file = str(Path(file).absolute())
        text = self._print("primary_hostname", "spool_directory")
        main = dict(map(_option, text.splitlines()))
        self.hostname = main["primary_hostname"]
        self.spool = main["spool_directory"]
        self._routers = _sections(self._print("routers"))
        self._transports = _sections(self._print("transports"))
        #: Parts of its lists whose domains drainer cannot list.
        self.unlisted: dict[str, None] = {}

    # --- where it sends mail

    def nexthops(self) -> dict[Nexthop, list[str]]:
        """Return the domains that another server delivers, by their next hop.

        They are those of ``relay_to_domains``, and those that a manualroute router
        names. Raises SourceError when Exim cannot evaluate its configuration.
        """
        listed = list(self._items(RELAYED))
        relayed = self._matching(listed, RELAYED) if listed else []
        waiting = list(dict.fromkeys((*relayed, *self._named_domains())))
        found: dict[Nexthop, list[str]] = {}
        for name, router in self._routers.items():
            matching = self._matching(waiting, router.get("domains", ""))
            taken = self._find_nexthops(name, router, matching)
            for domain in filter(taken.get, matching):
                if domain in relayed or router["driver"] == "manualroute":
                    found.setdefault(taken[domain], []).append(domain)
            waiting = [domain for domain in waiting if domain not in taken]
        if lost := [domain for domain in waiting if domain in relayed]:
            found[Nexthop(doubt="no router of Exim takes its mail")] = lost
        return found

    def _find_nexthops(
        self, name: str, router: Options, domains: list[str]
    ) -> dict[str, Nexthop]:
        """Return the next hops of the domains whose mail a router takes."""
        conditions = [each for each in _CONDITIONS if router.get(each)]
        driver = router["driver"]
        if "verify_only" in router or driver == "redirect":
            return {}
        if driver == "dnslookup":
            taken = dict.fromkeys(domains, Nexthop())
        elif driver == "manualroute":
            taken = self._by_hand(router, domains)
        elif conditions:
            return {}
        else:
            nexthop = self._nexthop(router, RouteRule())
            if not nexthop.host:
                doubt = f"Exim delivers it by the router {name} (driver {driver})"
                nexthop = Nexthop(doubt=doubt)
            return dict.fromkeys(domains, nexthop)
        if not conditions:
            return taken
        doubt = f"the router {name} of Exim has {', '.join(conditions)}"
        return {key: each._replace(doubt=doubt) for key, each in taken.items()}

    def _by_hand(self, router: Options, domains: list[str]) -> dict[str, Nexthop]:
        """Return the next hops by a manualroute router, for those that it has."""
        left, found = domains, dict[str, Nexthop]()
        for rule in parse_route_list(router.get("route_list", "")):
            matching = self._matching(left, rule.pattern)
            hosts = self._values(matching, expand_value(rule))
            for domain in matching:
                known = rule._replace(hosts=hosts.get(domain, ""))
                found[domain] = self._nexthop(router, known)
            left = [domain for domain in left if domain not in found]
        data = router.get("route_data", "")
        for domain, value in self._values(domains, data).items():
            if value:
                found[domain] = self._nexthop(router, parse_route_data(value))
        if _OF_A_MESSAGE.search(f"{router.get('route_list')} {data}"):
            doubt = "Exim finds the host by what is in the message"
            return {key: Nexthop(doubt=doubt) for key in found}
        return found

    def _nexthop(self, router: Options, rule: RouteRule) -> Nexthop:
        shares = "hosts_randomize" in router
        transport = router.get("transport", "")
        for option in rule.options:
            if option in ("randomize", "no_randomize"):
                shares = option == "randomize"
            elif option in self._transports:
                transport = option
        return nexthop_of(
            rule.hosts, self._transports.get(transport, {}), shares=shares
        )

    # --- domain lists

    def _named_domains(self) -> Iterator[str]:
        """Yield the domains that the manualroute routers name."""
        for router in self._routers.values():
            if router["driver"] == "manualroute":
                yield from self._items(router.get("domains", ""))
                for rule in parse_route_list(router.get("route_list", "")):
                    yield from self._items(rule.pattern)

    def _items(self, text: str) -> Iterator[str]:
        """Yield the domains that a list names; ``.example.org`` means subdomains."""
        for item in split_list(self._values([""], text).get("", "")):
            if item.startswith("!") or item in _NO_PRIMARY:
                continue
            if item.startswith("+"):
                named = self._print(item, may_fail=True)  # "domainlist NAME = ITEMS"
                yield from self._items(named.partition(" = ")[2])
            elif match := _FILE.fullmatch(item):
                yield from self._keys(item, *match.groups())
            elif item.startswith("/"):
                yield from self._keys(item, "file", item)
            else:
                yield from self._domains(item)

    def _domains(self, item: str) -> Iterator[str]:
        domain = item.lower().removeprefix("*.").rstrip(".")
        if not _DOMAIN.fullmatch(domain):
            self.unlisted[item] = None
        elif item.startswith("*."):
            yield f".{domain}"
        else:
            yield domain

    def _keys(self, item: str, kind: str, path: str) -> Iterator[str]:
        """Yield the domains that are the keys of a file, or the names in a folder."""
        try:
            if kind == "dsearch":
                keys = sorted(each.name for each in Path(path).iterdir())
            else:
                lines = Path(path).read_text("utf-8", "replace").splitlines()
                found = (re.match(r'"?([^\s:#"][^\s:"]*)', line) for line in lines)
                keys = [match[1] for match in found if match]
        except OSError as error:
            self.unlisted[f"{item} ({error.strerror})"] = None
            return
        for key in keys:
            yield from self._domains(key)
            if key.startswith("*.") and item.startswith("partial"):
                yield from self._domains(key.removeprefix("*."))

    def _matching(self, domains: Iterable[str], text: str) -> list[str]:
        """Return the domains that a list has; an empty list has all."""
        domains = list(domains)
        if not text:
            return domains
        questions = {
            domain: f"${{if match_domain{{{_name(domain)}}}{{\\N{items}\\N}}{{yes}}}}"
            for domain, items in self._values(domains, text).items()
        }
        found = self._evaluate(questions)
        return [domain for domain in domains if found.get(domain)]

    # --- questions to Exim

    def _values(self, domains: Iterable[str], text: str) -> dict[str, str]:
        """Return what Exim makes of a text for each domain; nothing if it declines."""
        if "$" not in text and "\\" not in text:
            return dict.fromkeys(domains, text)
        return self._evaluate({each: _NAME.sub(_name(each), text) for each in domains})

    def _evaluate(self, texts: Mapping[str, str]) -> dict[str, str]:
        """Return the values of texts by their keys; nothing if Exim declines."""
        if not texts:
            return {}
        lines = "".join(f"={n}={text}\n" for n, text in enumerate(texts.values()))
        answer = self._run("-be", text=lines)
        for reason in re.findall(r"^(?:> )?Failed: (.*)$", answer, re.MULTILINE):
            if not reason.endswith('"fail" requested'):
                message = f"Exim cannot evaluate its configuration: {reason[:300]}"
                raise SourceError(message, hint=_HINT)
        values = re.findall(r"^(?:> )?=(\d+)=(.*)$", answer, re.MULTILINE)
        keys = list(texts)
        return {keys[int(n)]: value.strip() for n, value in values}

    def _print(self, *names: str, may_fail: bool = False) -> str:
        """Return what ``exim -bP`` prints."""
        return self._run("-bP", *names, may_fail=may_fail)

    def _run(self, *arguments: str, text: str = "", may_fail: bool = False) -> str:
        path = f"{os.environ.get('PATH', os.defpath)}:{_PROGRAMS}"
        found = (shutil.which(each, path=path) for each in ("exim4", "exim"))
        program = next(filter(None, found), None)
        if program is None:
            raise SourceError("exim4 and exim are not installed here", hint=_HINT)
        try:
            done = subprocess.run(  # noqa: S603 - a fixed program, no shell
                [program, "-C", self.file, *arguments],
                check=False,
                input=text,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT,
                env={"PATH": path, "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired:
            message = f"Exim did not answer within {_TIMEOUT:.0f} s"
            raise SourceError(message, hint=_HINT) from None
        if done.returncode and may_fail:
            return ""
        if done.returncode:
            said = " ".join((done.stderr or done.stdout).split())[:300]
            raise SourceError(f"Exim cannot read {self.file}: {said}", hint=_HINT)
        return done.stdout


def _name(domain: str) -> str:
    return f"{ANY_NAME}{domain}" if domain.startswith(".") else domain


def _option(line: str) -> tuple[str, str]:
    """Return name and value; a flag has its name as its value."""
    name, is_option, value = line.partition(" =")
    return name, value.strip() if is_option else name


def _sections(text: str) -> dict[str, dict[str, str]]:
    """Return the options of each router or transport by its name."""
    found: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"(\S+) (?:router|transport):", line):
            current = found.setdefault(match[1], {})
        elif line:
            name, value = _option(line)
            current[name] = value
    return found
