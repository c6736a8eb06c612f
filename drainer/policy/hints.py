"""What to do about a stage that failed, in words for the person at the console."""

from drainer.mail.reply import Lost, Reply, Stage

_LOST = {
    "refused": "nothing listens there: is the primary's SMTP server running?",
    "unreachable": "no way to that address: check routing and firewalls",
    "unresolved": "the name does not resolve: check --to and DNS",
    "timeout": "no answer in time: a firewall, or a server under load",
    "closed": "the primary closed the connection without a word: look at its log",
    "reset": "the primary reset the connection: look at its log",
    "tls": "the TLS handshake failed: check the primary's certificate, or set"
    ' [primary] tls = "opportunistic" or verify = false if you can accept that',
    "protocol": "that is no SMTP server, or something in between alters SMTP",
}
_STAGES = {
    Stage.BANNER: "the primary does not serve this host: allow its address there",
    Stage.EHLO: "the primary dislikes our name: set [primary] helo to this host's"
    " full name, with matching forward and reverse DNS",
    Stage.STARTTLS: "TLS was refused: look at the primary's TLS settings",
    Stage.AUTH: "the login was refused: check [primary] username and password_file;"
    " do not retry often, the account may be locked",
    Stage.MAIL: "the primary refuses the sender: set [health] sender, or exempt this"
    " host from its sender checks",
    Stage.RCPT: "relay denied, or the user table is not back: on Postfix add this"
    " host to mynetworks or the domain to relay_domains, on Exchange allow this"
    " host on the receive connector; then look the address up on the primary",
}


def hint(stage: Stage, answer: Reply | Lost) -> str:
    """Return what to do next; '' when there is nothing to say."""
    if isinstance(answer, Lost):
        return _LOST.get(answer.reason, "")
    return _STAGES.get(stage, "")


CATCH_ALL = "the primary accepts any address: it cannot tell us who is unknown"
NO_KNOWN_GOOD = (
    "set [health] accept to an address that must exist: without one, a primary with"
    " an empty user table looks healthy"
)
NO_DOMAIN = "set [primary] domains, so that a random recipient can be tried"
"""Hints for what is worth a warning, not a failure."""
