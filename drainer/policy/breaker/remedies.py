"""What the operator can do: about a failed stage of a check, and an open breaker.

A remedy follows from the rule that judged the reply, and from its words where one rule
has several causes (remedies.toml). The stage decides only if the reply gives no reason.
"""

import re
import tomllib
from functools import cache
from importlib import resources

from msgspec import Struct

from drainer.mail.reply import Lost, Reply, Stage, as_said
from drainer.policy.breaker.breaker import Cause
from drainer.policy.classify.classifier import classify, family_of
from drainer.policy.classify.normalize import words_of

_LOST = {
    "token": "run token_command ([primary], or the route) as the user that runs"
    " drainer: it must print an access token and end with exit status 0",
    "refused": "nothing listens there: is the primary's SMTP server running?",
    "unreachable": "there is no route to that address: check routing and firewalls",
    "socket": "that Unix socket does not exist, or this user may not connect to it:"
    " check that the LMTP server runs, its path in [primary] host, and its permissions",
    "unresolved": "the name does not resolve: check --to and DNS",
    "timeout": "no answer in time: a firewall, an overloaded server, or a port that"
    " expects TLS from the start (465); name the SMTP port",
    "closed": "the primary closed the connection without a reply: look at its log",
    "reset": "the primary reset the connection: look at its log",
    "tls": "the TLS handshake failed: look at the primary's TLS settings and log",
    "protocol": "it is not an SMTP server, or a device in between alters SMTP",
}
_NOT_SMTP = (
    (r"http/\d|<html|<!doctype", "that is a web server (HTTP): name the SMTP port"),
    (r"\* ok|imap", "that is an IMAP server: name the SMTP port"),
    (r"\+ok", "that is a POP3 server: name the SMTP port"),
    (r"\bssh-", "that is an SSH server: name the SMTP port"),
    (r"\bftp|user and pass", "that is an FTP server: name the SMTP port"),
    (r"\\x1[56]\\x03", "that port expects TLS from the start: name the SMTP port"),
)
"""What a server that does not speak SMTP says -> the remedy."""
_NOT_TLS = (
    'the answer of the primary is not TLS: if [primary] tls is "implicit", set'
    ' "required" for STARTTLS, or name the TLS port, usually 465. Otherwise look for a'
    " firewall or proxy in between"
)
_OLD = (
    "the primary does not support TLS 1.2 or later: update it; until then set [primary]"
    ' tls_minimum = "1.0"'
)
_CLIENT_WANTED = (
    "the primary wants a client certificate that it trusts: set tls_cert and tls_key"
    " ([primary], or the route)"
)
_CLIENT_REFUSED = (
    "the primary does not accept our client certificate: look at its log, and at"
    " tls_cert ([primary], or the route)"
)
_HANDSHAKE = {
    "certificate has expired": "the primary's certificate, or that of an issuer, has"
    " expired: renew it on the primary; check this host's clock",
    "not yet valid": "the primary's certificate is not valid yet: check the clocks of"
    " both hosts, then the certificate",
    "mismatch": "the primary's certificate does not name [primary] host among its"
    " subjectAltNames, and the common name does not count: set [primary] host to a name"
    " in the certificate, or get a certificate that names the host",
    "self-signed certificate in": "this host does not know the primary's CA: add the"
    " CA to this host's trust store, or name its PEM file in tls_ca ([primary], or the"
    " route)",
    "self-signed": "the primary's certificate is self-signed: install one from a CA,"
    " or name its PEM file in tls_ca, or its key in tls_pin ([primary], or the route)",
    "local issuer": "this host does not know the issuer of the primary's certificate:"
    " configure the primary to send the intermediate certificates, or add its CA to"
    " this host's trust store, or name the CA's PEM file in tls_ca ([primary], or the"
    " route)",
    "first certificate": "the primary does not send the intermediate certificates: add"
    " them to its certificate file",
    "none that its tlsa": "the primary has another certificate than its TLSA records"
    " name: publish a record of the new one. If it has not changed, it is another"
    " server, or one in between",
    "tlsa record": "DANE needs a TLSA record of the primary's host and port, in a zone"
    " that is signed, and a resolver that validates: see [bounce] dns_servers",
    "not in tls pin": "the primary has another key than tls_pin ([primary], or the"
    " route) names: ask its operator whether the key has changed. If so, add this"
    " SHA-256. If not, it is another server, or one in between",
    "certificate required": _CLIENT_WANTED,
    "alert unknown ca": _CLIENT_REFUSED,
    "alert bad certificate": _CLIENT_REFUSED,
    "alert certificate": _CLIENT_REFUSED,
    "key too small": "the primary's keys or Diffie-Hellman parameters are too small:"
    ' make new ones there; until then set [primary] tls_minimum = "1.0"',
    "verify failed": "this host does not accept the primary's certificate: get another"
    " one for the primary",
    "legacy sigalg": _OLD,
    "version too low": _OLD,
    "protocol version": _OLD,
    "unsupported protocol": _OLD,
    "no protocols": _OLD,
    "wrong version number": _NOT_TLS,
    "record layer failure": _NOT_TLS,  # OpenSSL 3.2
}
"""Part of an OpenSSL error, in lower case -> what to do; the first match counts."""
_ENDED = (
    "the primary ended the connection without a reply to STARTTLS or in the handshake:"
    " look at its log. If it knows only an old TLS version, update it, or set [primary]"
    ' tls_minimum = "1.0"'
)
"""Exchange of old hangs up without an alert when no version suits."""
AFTER_HANDSHAKE = (
    "the primary ended the connection right after the TLS handshake: look at its log."
    " It may want a client certificate: tls_cert and tls_key ([primary], or the route)"
)
NO_NAMES = (
    "the primary's certificate has no subjectAltName, and its common name does not"
    " count: get one that names the host in a subjectAltName"
)
NOT_OFFERED_TLS = (
    "the primary does not offer STARTTLS, and [primary] requires TLS: enable TLS there,"
    " or look for a firewall in between that removes STARTTLS"
)
TLS_ONLY = (
    'that port expects TLS from the start (SMTPS): set [primary] tls = "implicit", or'
    " name the SMTP port, usually 25"
)
NOT_LMTP = (
    'that is SMTP, not LMTP: set [primary] protocol = "smtp", or name the LMTP port or'
    " socket"
)
PROXY_SENT = (
    "the primary may not expect the PROXY header, or not from this host: set [primary]"
    ' proxy_protocol = "off", or let its server read the header from this host'
)
BIND = (
    "[primary] bind must be an address of this host, of the same family (IPv4 or IPv6)"
    " as the primary's"
)
NO_TLSA_ANSWER = (
    "DNSSEC proves the zone of the primary, but DNS fails at its TLSA records, so that"
    " nothing may be sent (RFC 7672 2.1.2): repair DNS; or name the primary's key in"
    " tls_pin ([primary], or the route), or its address as host"
)
_OUR_END = re.compile("Cannot assign requested address|of another family")
BYPASSED = (
    "LMTP delivers straight to the mailboxes: the primary's SMTP server, with its spam"
    " and virus filters, sees none of this mail"
)
NOT_OFFERED = (
    "[primary] forward_client asks for it, and the primary does not offer it to this"
    " host: its filters judge all mail by this host's address"
)
CATCH_ALL = "the primary accepts any address, so it does not show which users exist"
BLIND = (
    f"{CATCH_ALL}, and [health] accept names no address: nothing can show that this is"
    " the wrong server"
)
IN_THE_CLEAR = 'until then mail goes unencrypted; tls = "required" forbids that'
UNDECIDED = (
    "the primary cannot say which users exist: is its user table back? It may also"
    " defer unknown hosts (greylisting): exempt this host"
)
NOT_RESET = "the primary does not reset a transaction: its SMTP server is broken"
NO_KNOWN_GOOD = (
    "set [health] accept to an address that must exist: without one, a primary with"
    " an empty user table looks healthy"
)
NO_DOMAIN = "set [primary] domains, so that drainer can test a random recipient"
"""Warnings of the check."""

_SILENT = "it does not serve this host: look at its log, and firewalls in between"
_UNSAID = "look at its log for this host's address, and at one refused message"
_UNSAID_AT = {
    Stage.MAIL: "the primary refuses the sender of the check, and does not say why:"
    " look at its log; set [health] sender, or exempt this host from its sender checks",
    Stage.RCPT: "the primary refuses an address that must exist, and does not say why:"
    " look at its log. It may deny relay (on Postfix: mynetworks, relay_domains; on"
    " Exchange: the receive connector), or its user table is missing",
}
_UNKNOWN_COMMAND, _BAD_CREDENTIALS = (500, 502), 535
NO_EHLO = (
    "it does not know EHLO, which every SMTP server of today knows: see what listens on"
    " that port, and whether a firewall in between alters SMTP"
)
_STAGE = re.compile(r"^[a-z]+: ")
"""What a cause from before MAIL has before the reply."""
_LOSS = re.compile(r"([a-z]+)(?: \((.*)\))?", re.DOTALL)
"""A mail.reply.Lost as text."""
_BY_CODE = re.compile(r"[a-z]+-([45]\.\d.*)")


class Remedy(Struct, frozen=True, kw_only=True):
    """One row of remedies.toml."""

    id: str
    rules: re.Pattern[str]
    words: re.Pattern[str]
    text: str


@cache
def remedies() -> tuple[Remedy, ...]:
    """Return the rows of remedies.toml, in the order they are tried."""
    raw = resources.files("drainer.policy.breaker").joinpath("remedies.toml")
    rows = tomllib.loads(raw.read_text("utf-8"))["remedy"]
    texts = {row["id"]: row["text"] for row in reversed(rows) if "text" in row}
    return tuple(
        Remedy(
            id=row["id"],
            rules=re.compile(row["rules"]),
            words=re.compile(row.get("words", "")),
            text=" ".join(texts[row["id"]].split()),
        )
        for row in rows
    )


def text_of(name: str) -> str:
    """Return the text of the remedy with this id."""
    return next(each.text for each in remedies() if each.id == name)


def topic(stage: Stage, answer: Reply | Lost) -> str:
    """Return the id of the remedy for a reply; '' if there is none, or no reply."""
    if isinstance(answer, Lost):
        return ""
    found = _find(classify(answer, stage).rule, answer)
    return found.id if found else ""


def hint(stage: Stage, answer: Reply | Lost) -> str:
    """Return what to do about a failed stage of a check; '' if nothing is known."""
    if isinstance(answer, Lost):
        if stage is Stage.STARTTLS or answer.reason == "tls":
            ended = _ENDED if answer.reason in ("closed", "reset") else ""
            known = handshake_hint(answer.detail) or ended
            return known or _LOST.get(answer.reason, "")
        if answer.reason == "unreachable" and _OUR_END.search(answer.detail):
            return BIND
        if answer.reason == "unresolved" and "TLSA" in answer.detail:
            return NO_TLSA_ANSWER
        return _after_garbage(answer.detail) or _LOST.get(answer.reason, "")
    if stage is Stage.STARTTLS and answer.text.endswith("does not offer STARTTLS"):
        return NOT_OFFERED_TLS
    if stage is Stage.EHLO and (other := _after_garbage(answer.text)):
        return other
    if answer.code == _BAD_CREDENTIALS:
        return text_of("credentials")
    found = _find(classify(answer, stage).rule, answer)
    is_unknown = stage is Stage.EHLO and answer.code in _UNKNOWN_COMMAND
    if is_unknown and (found is None or found.id in ("name", "ehlo")):
        return NO_EHLO
    return found.text if found else _UNSAID_AT.get(stage, "")


def handshake_hint(words: str) -> str:
    """Return what to do about a failed handshake; '' if its cause is unknown."""
    lowered = words.lower().replace("_", " ")
    return next((hint for sign, hint in _HANDSHAKE.items() if sign in lowered), "")


def remedy(cause: Cause) -> str:
    """Return what the operator can do about an open circuit breaker."""
    if cause.content:
        return text_of("content")
    rule, said = cause.classification.rule, as_said(_STAGE.sub("", cause.reply))
    if isinstance(said, Reply):
        found = _find(rule, said)
        return found.text if found else _UNSAID
    lost = _LOSS.fullmatch(said)
    if lost is not None and lost[1] in _LOST:
        return hint(_stage_of(rule), Lost(reason=lost[1], detail=lost[2] or ""))
    found, early = _find(rule, None), cause.trigger == "early"
    return found.text if found else _SILENT if early else _UNSAID


def _stage_of(rule: str) -> Stage:
    """Return the stage that a rule such as `starttls-lost` names."""
    name = rule.partition("-")[0]
    return next((stage for stage in Stage if stage == name), Stage.CONNECT)


def advice(rule: str, said: str) -> str:
    """Return what to do about a refusal that is kept as rule and text, or nothing."""
    if rule.startswith("local-"):
        found = _find(rule, None)
    else:
        reply = as_said(said)
        found = _find(rule, reply) if isinstance(reply, Reply) else None
    return found.text if found else ""


def _find(rule: str, reply: Reply | None) -> Remedy | None:
    """Return the remedy of the first name that has one.

    A refusal before MAIL, and 421, has a rule of its stage. What its text says is more;
    a code about the protocol (X.5.X) says less.
    """
    words = words_of(reply.text) if reply else ""
    names = [_BY_CODE.sub(r"\1", rule)]
    if reply is not None and not rule.startswith(("text-", "enhanced-")):
        family = family_of(reply)
        status = "" if reply.detail.startswith("5.") else reply.enhanced
        names = [f"text-{family.id}" if family else "", status, *names]
    return next(
        (
            each
            for name in filter(None, names)
            for each in remedies()
            if each.rules.fullmatch(name) and each.words.search(words)
        ),
        None,
    )


def _after_garbage(said: str) -> str:
    """Return what a server is that answered, and not in SMTP; '' if unknown."""
    words = said.lower()
    return next((text for sign, text in _NOT_SMTP if re.search(sign, words)), "")
