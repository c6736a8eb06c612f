"""What to do about a failed stage, as advice for the operator."""

import re

from drainer.mail.reply import Lost, Reply, Stage
from drainer.policy.breaker.breaker import Cause

_LOST = {
    "refused": "nothing listens there: is the primary's SMTP server running?",
    "unreachable": "there is no route to that address: check routing and firewalls",
    "unresolved": "the name does not resolve: check --to and DNS",
    "timeout": "no answer in time: a firewall, or an overloaded server",
    "closed": "the primary closed the connection without a reply: look at its log",
    "reset": "the primary reset the connection: look at its log",
    "tls": "the TLS handshake failed: look at the primary's TLS settings and log",
    "protocol": "it is not an SMTP server, or a device in between alters SMTP",
}
_OLD = "the primary does not support TLS 1.2 or later: update it"
_HANDSHAKE = {
    "certificate has expired": "the primary's certificate, or that of an issuer, has"
    " expired: renew it on the primary; check this host's clock",
    "not yet valid": "the primary's certificate is not valid yet: check the clocks of"
    " both hosts, then the certificate",
    "mismatch": "the primary's certificate does not name [primary] host among its"
    " subjectAltNames, and the common name does not count: set [primary] host to a name"
    " in the certificate, or get a certificate that names the host",
    "self-signed certificate in": "this host does not know the primary's CA: add the"
    " CA to this host's trust store, or name its PEM file in SSL_CERT_FILE",
    "self-signed": "the primary's certificate is self-signed: install one from a CA,"
    " or add it to this host's trust store (SSL_CERT_FILE names a PEM file)",
    "local issuer": "this host does not know the issuer of the primary's certificate:"
    " configure the primary to send the intermediate certificates, or add its CA to"
    " this host's trust store (SSL_CERT_FILE names a PEM file)",
    "first certificate": "the primary does not send the intermediate certificates: add"
    " them to its certificate file",
    "verify failed": "this host does not accept the primary's certificate: get another"
    " one for the primary",
    "protocol version": _OLD,
    "unsupported protocol": _OLD,
    "no protocols": _OLD,
    "wrong version number": "the answer after STARTTLS is not TLS: look for a firewall"
    " or proxy in between",
}
"""Part of an OpenSSL error, in lower case -> what to do; the first match counts."""
NO_NAMES = (
    "the primary's certificate has no subjectAltName, and its common name does not"
    " count: get one that names the host in a subjectAltName"
)
NOT_OFFERED_TLS = (
    "the primary does not offer STARTTLS, and [primary] requires TLS: enable TLS there,"
    " or look for a firewall in between that removes STARTTLS"
)
_STAGES = {
    Stage.BANNER: "the primary does not serve this host: allow its address there",
    Stage.EHLO: "the primary refuses our name: set [primary] helo to this host's"
    " full name, with matching forward and reverse DNS",
    Stage.STARTTLS: "the primary refused TLS: look at its TLS settings",
    Stage.AUTH: "the primary refused the login: check [primary] username and"
    " password_file; do not retry often, it may lock the account",
    Stage.FORWARD: "the primary does not let this host name the client: on Postfix"
    " add its address to smtpd_authorized_xclient_hosts or"
    ' smtpd_authorized_xforward_hosts, or set [primary] forward_client = "off"',
    Stage.MAIL: "the primary refuses the sender: set [health] sender, or exempt this"
    " host from its sender checks",
    Stage.RCPT: "relaying is denied, or the user table is missing: on Postfix add this"
    " host to mynetworks or the domain to relay_domains, on Exchange allow this"
    " host on the receive connector; then look up the address on the primary",
}


def hint(stage: Stage, answer: Reply | Lost) -> str:
    """Return what to do next; '' if nothing is known."""
    if isinstance(answer, Lost):
        if stage is Stage.STARTTLS:
            return handshake_hint(answer.detail) or _LOST.get(answer.reason, "")
        return _LOST.get(answer.reason, "")
    if stage is Stage.STARTTLS and answer.text.endswith("does not offer STARTTLS"):
        return NOT_OFFERED_TLS
    return _STAGES.get(stage, "")


def handshake_hint(words: str) -> str:
    """Return what to do about a failed handshake; '' if its cause is unknown."""
    lowered = words.lower().replace("_", " ")
    return next((hint for sign, hint in _HANDSHAKE.items() if sign in lowered), "")


NOT_OFFERED = (
    "[primary] forward_client asks for it, and the primary does not offer it to this"
    " host: its filters judge all mail by this host's address"
)
CATCH_ALL = "the primary accepts any address, so it does not show which users exist"
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
"""Hints for warnings, not for failures."""


_CONTENT = "its content filter refuses everything: look at the filter and its log"
_REMEDIES: dict[str, str] = {
    r"(connect|banner|ehlo|forward)-(lost|protocol)|(connect|banner|ehlo)-4xx": (
        "it does not answer this host: look at its log, and at firewalls in between"
    ),
    r"forward-[45]xx": _STAGES[Stage.FORWARD],
    r"text-relay-denied|basic-551|[45]\.7\.(51|64)": (
        "it refuses to relay for this host. On Postfix: add this host to mynetworks, or"
        " the domain to relay_domains; on Exim: to relay_from_hosts, relay_to_domains;"
        " on Exchange: allow this host's address on the receive connector"
    ),
    r"basic-556|[45]\.(1\.2|1\.10|4\.4)": (
        "it no longer serves that domain. On Postfix: look at relay_domains,"
        " virtual_mailbox_domains and mydestination; on Exchange: at accepted domains"
    ),
    r"text-(unknown-user.*|no-such-user|mailbox-closed)|[45]\.(1\.\d+|2\.1)": (
        "it knows none of these users: is its user table (LDAP, SQL, a map) back? Look"
        " up one of the addresses there (Postfix: `postmap -q ADDRESS MAP`)"
    ),
    (
        r"text-our-address|text-our-name|basic-521|(banner|ehlo)-5xx"
        r"|[45]\.7\.(25|511|60[6-9]|6[1-4]\d)"
    ): (
        "it refuses this host's address or name. On Postfix: put permit_mynetworks"
        " before the client checks; set forward and reverse DNS, and [primary] helo"
    ),
    (
        r"text-auth-required|basic-(52[345]|53\d)|(auth|starttls)-.*"
        r"|[45]\.(5\.6|7\.(8|9|10|11|12|14|57))"
    ): (
        "it requires a login or TLS: set [primary] username, password_file, tls; or"
        " exempt this host there"
    ),
    r"text-sender-authentication|[45]\.7\.(2[0-46]|29|509)": (
        "it checks the senders against this host's address: exempt this host from SPF"
        " and DMARC checks there, because it passes on mail of other senders"
    ),
    r"text-our-rate|[45]\.(4\.5|7\.(28|[568]\d\d))": (
        "it wants less mail at once: lower [throttle] rate and [primary] connections,"
        " or exempt this host from its limits"
    ),
    r"text-sick|text-filter-down|basic-45\d|[45]\.(3\.\d+|4\.3)": (
        "it has a fault: look at its disk, its filters and its log"
    ),
    r"text-content.*|[45]\.6\.\d+": _CONTENT,
}
"""A rule id, or its enhanced code -> what the operator can do; first match counts."""

_BY_CODE = re.compile(r"[a-z]+-([45]\.\d.*)")


def remedy(cause: Cause) -> str:
    """Return what the operator can do about an open circuit breaker."""
    if cause.content:
        return _CONTENT
    rule = _BY_CODE.sub(r"\1", cause.classification.rule)
    if rule == "starttls-lost" and (words := handshake_hint(cause.reply)):
        return words
    for pattern, words in _REMEDIES.items():
        if re.fullmatch(pattern, rule):
            return words
    if cause.trigger == "early":
        return "it does not serve this host: look at its log, and firewalls in between"
    return "look at its log for this host's address, and at one refused message"
