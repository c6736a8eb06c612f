"""SPF for the MAIL FROM identity, by pyspf on our own DNS interface (RFC 7208).

pyspf's own lookups would follow the search list of resolv.conf. It checks HELO if the
sender is empty, and it raises on odd addresses. So it never sees any of these.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import spf
from msgspec.structs import replace

from drainer.bounce.evidence.dns import DnsOutcome, Resolver
from drainer.policy.bounce.facts import Address, SpfResult, SpfTerm
from drainer.runtime.public_suffixes import organisation_of

_MAX_TEXT = 200
"""Characters of a term or of an error that are kept."""


def check(
    dns: Resolver, address: Address, *, local: str, domain: str, helo: str = ""
) -> SpfResult:
    """Return the SPF result of a client for ``local@domain``; never raises.

    ``domain`` is in ASCII; ``helo`` matters only for macros.
    """
    try:
        question = _Question(dns, address, local or "postmaster", domain, helo)
        result, _, words = question.check()
    except Exception as error:  # noqa: BLE001 - a record that pyspf stumbles over
        return SpfResult(result="permerror", detail=f"{error!r}"[:_MAX_TEXT])
    if result == "pass":
        return SpfResult(result="pass", path=tuple(reversed(question.path)))
    detail = str(words)[:_MAX_TEXT] if result.endswith("error") else ""
    return SpfResult(result=result, detail=detail)


class _Question(spf.query):  # type: ignore[misc] # pyspf has no types
    """A query that asks our DNS, and keeps the path to the term that matched."""

    def __init__(
        self, dns: Resolver, address: Address, local: str, domain: str, helo: str
    ) -> None:
        self.path: list[SpfTerm] = []
        self._dns = dns
        self._organisation = organisation_of(domain)
        self._last: object = None
        super().__init__(str(address), f"x@{domain}", helo or "unknown")
        # pyspf would split at the first @, which may be part of a quoted local part.
        self.s, self.l, self.o, self.d = f"{local}@{domain}", local, domain, domain

    def check0(self, record: Any, _depth: int) -> Any:  # noqa: ANN401
        """Evaluate one record; on a pass, note which of its terms matched.

        pyspf reports the term only at depth 0. Deeper, the depth changes nothing but
        explanations, and the limit on lookups stops loops.
        """
        answer = super().check0(record, 0)
        if not answer or answer[0] != "pass":
            self.path.clear()
            return answer
        redirected = answer is self._last  # that of the other record, untouched
        self._last = answer
        text = self.mechanism
        if redirected:
            terms = (term for term in record.split(" ") if term.lower()[:9] == _TO)
            text = next(terms, _TO)
        term = _term(str(self.d), str(text), self.v == "ip6")
        foreign = tuple(dict.fromkeys(self._foreign(term, str(text))))
        self.path.append(replace(term, foreign=foreign))
        return answer

    def _foreign(self, term: SpfTerm, text: str) -> Iterator[str]:
        """Yield the names of other organisations that decide whether a term matches.

        ``text`` is the whole term. DNS was asked for all of it already.
        """
        yield from self._strange(term.domain, "TXT")
        if term.mechanism not in ("a", "mx"):
            return
        _, target, _, _ = spf.parse_mechanism(text.lstrip("+-~?"), term.domain)
        target = str(self.expand(target))
        hosts = [target]
        if term.mechanism == "mx":
            yield from self._strange(target, "MX")
            answers = self._dns.ask(target, "MX").texts
            hosts = [text.partition(" ")[2] for text in answers]
        matched = [
            list(self._strange(host, self.A))
            for host in hosts
            if self.cidrmatch(self._dns.ask(host, self.A).texts, term.prefix)
        ]
        if [] not in matched:  # otherwise a host of the sender has that address
            yield from chain.from_iterable(matched or [[target]])

    def _strange(self, name: str, kind: str) -> Iterator[str]:
        """Yield a name and its alias target, if it belongs to another organisation."""
        for each in (name.lower().rstrip("."), self._dns.ask(name, kind).owner):
            if each and organisation_of(each) != self._organisation:
                yield each

    def dns(
        self,
        name: Any,  # noqa: ANN401
        qtype: str,
        cnames: object = None,
        ignore_void: bool = False,  # noqa: FBT001, FBT002 - as pyspf has it
    ) -> list[Any]:
        """Ask our DNS; count void lookups as pyspf does (RFC 7208 4.6.4)."""
        del cnames
        answer = self._dns.ask(str(name), qtype)
        if answer.outcome is DnsOutcome.FAILED:
            raise spf.TempError(answer.detail)
        if not answer.records and not ignore_void:
            self.void_lookups += 1
            if self.void_lookups > spf.MAX_VOID_LOOKUPS:
                message = f"Void lookup limit of {spf.MAX_VOID_LOOKUPS} exceeded"
                raise spf.PermError(message)
        if qtype in ("TXT", "SPF"):
            return [(record,) for record in answer.records]
        if qtype == "MX":
            pairs = (text.split(" ", 1) for text in answer.texts)
            return [(int(preference), exchange) for preference, exchange in pairs]
        return list(answer.texts)


_TO = "redirect="


def _term(domain: str, text: str, is_ipv6: bool) -> SpfTerm:  # noqa: FBT001
    macro = "%{" in text
    if text.lower().startswith(_TO):
        mechanism, prefix = "redirect", None
    else:
        mechanism, _, short, long = spf.parse_mechanism(text.lstrip("+-~?"), domain)
        prefix = None
        if mechanism == "ip6":
            prefix = 128 if short is None else short
        elif mechanism in ("a", "mx") and is_ipv6:
            prefix = 128 if long is None else long
        elif mechanism in ("a", "mx", "ip4"):
            prefix = 32 if short is None else short
    return SpfTerm(
        domain=domain.lower().rstrip("."),
        text=text[:_MAX_TEXT],
        mechanism=str(mechanism),
        prefix=prefix,
        macro=macro,
    )
