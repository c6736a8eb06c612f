"""Which extension to do without when a primary refuses a parameter that it announced.

RFC 5321 4.1.1.11: 555 is the reply to a parameter of MAIL or RCPT that is not known.
Servers also say 501 or 504. A proxy that announces what the server behind it does not
know is the usual cause.
"""

import re

from drainer.mail.echo import unechoed
from drainer.mail.reply import Reply, Stage
from drainer.policy.recipient.judge import RecipientResult
from drainer.smtp.transaction import Transaction

_WORDS = {
    "dsn": frozenset(("RET", "ENVID", "NOTIFY", "ORCPT", "DSN")),
    "size": frozenset(("SIZE",)),
    "8bitmime": frozenset(("BODY", "8BITMIME", "7BIT")),
}
_UNKNOWN = 555
_SYNTAX = frozenset((501, 504))


def refused_extension(transaction: Transaction, result: RecipientResult) -> str:
    """Return the EHLO keyword of a refused parameter that may be left out, or ''."""
    reply, used = result.answer, _used(transaction, result)
    if not isinstance(reply, Reply) or not used or reply.detail.startswith("1."):
        return ""
    if reply.code not in (_UNKNOWN, *_SYNTAX):
        return ""
    text = unechoed(reply, transaction.sent(result.stage)).text  # strangers' words
    words = frozenset(re.findall(r"[A-Z0-9]+", text.upper()))
    named = [keyword for keyword in used if words & _WORDS[keyword]]
    if reply.code == _UNKNOWN or (reply.code in _SYNTAX and reply.detail == "5.4"):
        return (named or used)[0]
    return named[0] if named else ""


def _used(transaction: Transaction, result: RecipientResult) -> list[str]:
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
