"""Which extension to do without when a primary refuses a parameter that it announced.

RFC 5321 4.1.1.11: 555 is the reply to a parameter of MAIL or RCPT that is not known.
Servers also say 501 or 504, or another code with words that say it. A proxy that
announces what the server behind it does not know is the usual cause. Others announce
PIPELINING, and refuse commands that come together.
"""

import re

from drainer.mail.echo import remove_echo
from drainer.mail.reply import Reply, Stage
from drainer.mail.reply_codes import PERMANENT, TRANSIENT
from drainer.policy.recipient.judge import RecipientResult
from drainer.smtp.host_trust import PIPELINING
from drainer.smtp.transaction import Transaction

_WORDS = {
    "dsn": frozenset(("RET", "ENVID", "NOTIFY", "ORCPT", "DSN")),
    "size": frozenset(("SIZE",)),
    "8bitmime": frozenset(("BODY", "8BITMIME", "7BIT")),
}
_UNKNOWN = 555
_SYNTAX = frozenset((501, 504))
_OUT_OF_STEP = re.compile(r"pipelin|synchroni[sz]ation")
_PARAMETER = re.compile(r"parameter|option|argument|keyword|extension")
_NOT_KNOWN = re.compile(
    r"unknown|unsupported|unrecogni|invalid|illegal"
    r"|not (?:supported|recogni|implemented|understood|known|allowed)"
)
_HARMLESS_FIRST = ("size", "8bitmime", "dsn")
"""Without its name in the reply, the extension that is missed least goes first."""


def find_refused_extension(transaction: Transaction, result: RecipientResult) -> str:
    """Return the EHLO keyword of what a reply refuses and may be left out, or ''.

    That is a parameter, or commands that were sent together.
    """
    reply = result.answer
    if not isinstance(reply, Reply) or reply.category not in (TRANSIENT, PERMANENT):
        return ""
    text = remove_echo(reply, transaction.sent(result.stage)).text.lower()
    if PIPELINING in transaction.offer and _OUT_OF_STEP.search(text):
        return PIPELINING
    used = _used_extensions(transaction, result)
    if not used or reply.category != PERMANENT or reply.detail.startswith("1."):
        return ""
    words = frozenset(re.findall(r"[A-Z0-9]+", text.upper()))
    named = [keyword for keyword in used if words & _WORDS[keyword]]
    is_syntax = reply.code in _SYNTAX
    if reply.code == _UNKNOWN or (is_syntax and reply.detail == "5.4"):
        return (named or used)[0]
    is_parameter = _PARAMETER.search(text) is not None
    if named and (is_syntax or (is_parameter and _NOT_KNOWN.search(text))):
        return named[0]
    guessed = [keyword for keyword in _HARMLESS_FIRST if keyword in used]
    return guessed[0] if is_syntax and is_parameter else ""


def _used_extensions(transaction: Transaction, result: RecipientResult) -> list[str]:
    """Return the extensions whose parameters the refused command had."""
    envelope, recipient = (
        transaction.delivery.message.envelope,
        result.claimed.recipient,
    )
    if result.stage is Stage.RCPT:
        parameters = {"dsn": bool(recipient.notify or recipient.orcpt)}
    elif result.stage is Stage.MAIL:
        is_8bit = transaction.facts.has_8bit  # this cannot be sent without BODY
        parameters = {
            "dsn": bool(envelope.ret or envelope.envid),
            "size": True,
            "8bitmime": bool(envelope.body) and not is_8bit,
        }
    else:
        return []
    return [
        k for k, is_used in parameters.items() if is_used and k in transaction.offer
    ]
