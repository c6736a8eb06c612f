"""The text of a DSN for people: what happened, then what to do; pure.

One table maps the detail of an enhanced status code (RFC 3463) to a reason and an
advice. For a reply without a code, it maps the rule that matched its text.
"""

import textwrap
from collections.abc import Iterable
from email.utils import format_datetime

from drainer.mail.dsn.model import Dsn, DsnAction, RecipientStatus, host_of
from drainer.mail.dsn.status import MAX_VALUE
from drainer.mail.reply import printable

WIDTH = 72
"""Width of the text, in columns."""

_CHECK = (
    "Please check the address for mistakes. If it is right, ask the recipient in"
    " another way."
)
_WAIT = "Please try again in a few days, or ask the recipient in another way."
_ASK = "Please ask the recipient, or the postmaster of their domain, for help."
_SMALLER = "Please send something smaller, or share the file in another way."
_SENDER_ADMIN = "Please show this report to the administrator of your own mail server."

REASONS: dict[str, tuple[str, str]] = {
    "1.0": ("the address is not accepted", _CHECK),
    "1.1": ("the mailbox does not exist", _CHECK),
    "1.2": ("the domain of the address does not exist", _CHECK),
    "1.3": ("the address is not valid", _CHECK),
    "1.6": ("the mailbox has moved", _ASK),
    "1.7": ("your own address is not accepted", _SENDER_ADMIN),
    "1.8": ("the domain of your own address is not accepted", _SENDER_ADMIN),
    "1.10": ("the domain accepts no mail", _CHECK),
    "2.1": ("the mailbox is closed", _ASK),
    "2.2": ("the mailbox is full", _WAIT),
    "2.3": ("the message is larger than the mailbox allows", _SMALLER),
    "3.4": ("the message is too large", _SMALLER),
    "4.1": ("the mail server did not answer", _WAIT),
    "4.6": ("the message was caught in a mail loop", _ASK),
    "4.7": ("the server could not deliver it in time", _WAIT),
    "6.7": ("the address cannot be written in the way that the server needs", _ASK),
    "7.1": ("the recipient does not accept mail from you", _ASK),
    "7.2": ("the mailing list does not accept mail from you", _ASK),
    "7.13": ("the mailbox is closed", _ASK),
    "7.17": ("the mailbox belongs to another person now", _CHECK),
    "7.18": ("the domain has another owner now", _CHECK),
    "7.27": ("the domain of your own address accepts no mail", _SENDER_ADMIN),
    "text-unknown-user": ("the mailbox does not exist", _CHECK),
    "text-unknown-user-behind-gateway": ("the mailbox does not exist", _CHECK),
    "text-mailbox-closed": ("the mailbox is closed", _ASK),
    "text-mailbox-full": ("the mailbox is full", _WAIT),
    "text-too-large": ("the message is too large", _SMALLER),
    "text-group-closed": ("the group does not accept mail from you", _ASK),
    "text-recipient-blocks": ("the recipient does not accept mail from you", _ASK),
    "text-sender-refused": ("your own address is not accepted", _SENDER_ADMIN),
    "text-malformed-message": ("the message is not well formed", _SENDER_ADMIN),
}
"""Detail of a status code, or rule -> reason and advice."""
_BY_SUBJECT: dict[str, tuple[str, str]] = {
    "1": ("the address is not accepted", _CHECK),
    "2": ("the mailbox does not accept it", _ASK),
    "3": ("the mail server does not accept it", _ASK),
    "4": ("the mail server could not be reached", _WAIT),
    "6": ("its content is not accepted", _ASK),
    "7": ("it is not allowed there", _ASK),
}
_UNKNOWN = ("the mail server refused it", _ASK)


_OPENINGS = {
    DsnAction.FAILED: "Your message to {recipients} could not be delivered",
    DsnAction.RELAYED: "Your message to {recipients} was passed on to {server}, which"
    " does not confirm deliveries",
}


def reason_of(status: str, rule: str = "") -> tuple[str, str]:
    """Return the reason (the words after "because"), and what the sender can do.

    ``status`` is an enhanced status code, ``rule`` is our rule that decided.
    """
    _, _, detail = status.partition(".")
    subject = detail.partition(".")[0]
    specific = detail not in ("0.0", "") and not detail.endswith(".0")
    if specific and detail in REASONS and detail != "7.1":
        return REASONS[detail]
    if rule in REASONS:
        return REASONS[rule]
    return REASONS.get(detail) or _BY_SUBJECT.get(subject, _UNKNOWN)


def text_of(report: Dsn, statuses: Iterable[RecipientStatus]) -> str:
    """Return the text with LF line ends: what happened, the replies, what to do."""
    server = host_of(report.primary) or "the mail server"
    opening = _OPENINGS[report.action].replace("{server}", server)
    parts: list[str] = []
    for (because, advice, reply), paths in _group(report, statuses).items():
        many = len(paths) > 1
        named = "these recipients" if many else f"<{paths[0]}>"
        reason = f", because {because}" if because else ""
        parts.append(_wrap(opening.replace("{recipients}", named) + reason + "."))
        if many:
            parts.append("\n".join(f"    <{path}>" for path in paths))
        if reply:
            parts += [_wrap(f"The reply of {server}:"), _quote(reply)]
        if advice:
            parts.append(_wrap(advice))
    return "\n\n".join((*parts, _wrap(_closing(report)))) + "\n"


def _group(
    report: Dsn, statuses: Iterable[RecipientStatus]
) -> dict[tuple[str, str, str], list[str]]:
    """Return the recipients by what became of them: reason, advice and reply."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for each in statuses:
        because, advice = "", ""
        if report.action is DsnAction.FAILED:
            because, advice = reason_of(each.status, each.rule)
        key = because, advice, printable(each.reply, MAX_VALUE)
        groups.setdefault(key, []).append(printable(each.recipient.forward_path))
    return groups


def _closing(report: Dsn) -> str:
    host = host_of(report.hostname) or "a backup mail server"
    return (
        f"Your message arrived here on {format_datetime(report.arrived)}. This"
        f" report was written by {host}, which accepts mail while another mail server"
        " is unavailable. Please do not reply to it."
    )


def _wrap(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _quote(text: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        initial_indent="    ",
        subsequent_indent="    ",
        break_on_hyphens=False,
    )
