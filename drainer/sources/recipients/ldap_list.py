"""A list in an LDAP directory (RFC 4511): a search returns entries with addresses.

libldap decides which certificates it trusts: ldap.conf(5) and LDAPTLS_CACERT name the
authorities. A password never leaves this host without TLS.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ldap
from ldap.controls.libldap import SimplePagedResultsControl
from ldap.filter import escape_filter_chars

from drainer.errors import UsageError
from drainer.policy.census.address_table import AddressTable
from drainer.runtime.private_files import read_password
from drainer.runtime.redaction import redact, redact_url
from drainer.sources.recipients.asked_list import AskedList
from drainer.sources.recipients.list_spec import UNREADABLE, ListSpec
from drainer.sources.recipients.recipient_list import LoadedList, RecipientList

ATTRIBUTES = ("mail", "mailAlternateAddress", "proxyAddresses")
"""Attributes that have addresses, unless the operator names others."""
CONNECT_SECONDS, ANSWER_SECONDS = 10, 60
PAGE = 1000
"""Entries that a server returns together: Active Directory allows no more."""
_PLACEHOLDER = re.compile("%([sud%])")
_LOCAL = ("localhost", "127.0.0.1", "::1")
_KIND = re.compile("([A-Za-z0-9]+):")
"""Active Directory writes the kind of each address before it, such as smtp or sip."""


def open_ldap_list(spec: ListSpec, delimiters: str) -> RecipientList:
    """Return the list; raise UsageError if the directory cannot be searched.

    It is read as a whole, unless the filter has a placeholder (%s the address, %u and
    %d its parts, as in ldap_table(5)): then the directory is asked for each address.
    """
    search = LdapSearch(spec)
    table = AddressTable(search.name, delimiters)
    if search.has_placeholder:
        return AskedList(table, search.find)
    ignored = sum(not table.add(value) for value in search.values())
    return LoadedList(table, ignored)


class LdapSearch:
    """One search of a directory. It connects when it is needed, and then closes."""

    def __init__(self, spec: ListSpec) -> None:
        """Connect to nothing yet."""
        self._spec = spec
        self.name = redact_url(spec.url)
        self._attributes = list(spec.attributes or ATTRIBUTES)
        present = "".join(f"({name}=*)" for name in self._attributes)
        self._filter = spec.filter or f"(|{present})"

    @property
    def has_placeholder(self) -> bool:
        """Whether the filter is for one address at a time."""
        return any(sign != "%" for sign in _PLACEHOLDER.findall(self._filter))

    def values(self) -> Iterator[str]:
        """Yield every address that the search returns, page by page (RFC 2696)."""
        control = SimplePagedResultsControl(criticality=True, size=PAGE, cookie="")
        with self._session() as session:
            while True:
                number = session.search_ext(
                    self._spec.base,
                    ldap.SCOPE_SUBTREE,
                    self._filter,
                    self._attributes,
                    serverctrls=[control],
                )
                _, entries, _, controls = session.result3(
                    number, timeout=ANSWER_SECONDS
                )
                for name, attributes in entries:
                    if name is not None:  # else a referral
                        yield from _addresses(attributes)
                cookies = [c.cookie for c in controls if hasattr(c, "cookie")]
                if not any(cookies):
                    return
                control.cookie = cookies[0]

    def find(self, keys: Sequence[str]) -> list[str]:
        """Return the keys for which the search finds an entry."""
        with self._session() as session:
            return [key for key in keys if self._has(session, key)]

    def _has(self, session: Any, key: str) -> bool:  # noqa: ANN401 - it has no types
        """Search for one address; its characters mean nothing there (RFC 4515 3)."""
        local, _, domain = key.rpartition("@")
        values = {"s": key, "u": local, "d": domain, "%": "%"}
        text = _PLACEHOLDER.sub(
            lambda found: escape_filter_chars(values[found[1]]), self._filter
        )
        entries = session.search_ext_s(
            self._spec.base, ldap.SCOPE_SUBTREE, text, ["1.1"], timeout=ANSWER_SECONDS
        )
        return any(name is not None for name, _ in entries)

    @contextmanager
    def _session(self) -> Iterator[Any]:
        """Give a session that has logged in; raise UsageError for any failure."""
        try:
            session = ldap.initialize(self._spec.url)
            try:
                self._log_in(session)
                yield session
            finally:
                session.unbind_s()
        except (ldap.LDAPError, ValueError) as error:
            message = f"cannot read recipients from {self.name}: {_reason(error)}"
            raise UsageError(message, hint=UNREADABLE) from None

    def _log_in(self, session: Any) -> None:  # noqa: ANN401 - it has no types
        session.set_option(ldap.OPT_PROTOCOL_VERSION, 3)
        session.set_option(ldap.OPT_REFERRALS, 0)
        session.set_option(ldap.OPT_NETWORK_TIMEOUT, CONNECT_SECONDS)
        session.set_option(ldap.OPT_TIMEOUT, ANSWER_SECONDS)
        address = urlsplit(self._spec.url)
        if address.scheme == "ldap" and address.hostname not in _LOCAL:
            session.start_tls_s()
        if self._spec.bind_dn:
            session.simple_bind_s(self._spec.bind_dn, self._password())

    def _password(self) -> str:
        """Return the password; an empty one is an anonymous login (RFC 4513 5.1.2)."""
        path = self._spec.password_file
        try:
            password = read_password(Path(path)).decode().strip("\r\n") if path else ""
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the password file {path}: {error}") from None
        if not password:
            raise UsageError(
                f"bind_dn of {self.name} needs password_file, and a password in it"
            )
        return password


def _addresses(attributes: dict[str, list[bytes]]) -> Iterator[str]:
    for values in attributes.values():
        for value in values:
            text = value.decode("utf-8", "replace").strip()
            kind = _KIND.match(text)
            if kind is None or kind[1].lower() == "smtp":
                yield text[kind.end() :] if kind else text


def _reason(error: Exception) -> str:
    """Return what libldap or the server said, on one line."""
    said = error.args[0] if error.args else error
    if isinstance(said, dict):
        said = f"{said.get('desc', '')} {said.get('info', '')}"
    return redact(" ".join(str(said).split()))[:300]
