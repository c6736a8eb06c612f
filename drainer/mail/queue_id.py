"""The queue id that a mail server names when it accepts a message; pure.

The reply to the final dot has no standard form (RFC 5321 4.2.5 leaves the text free).
These are the forms of the usual servers. An auditor searches their logs for the id.
"""

import re

_ID = r"([A-Za-z0-9][A-Za-z0-9._@/+-]{3,127})"
_FORMS = (
    re.compile(rf"\bqueued as {_ID}", re.IGNORECASE),  # Postfix, Rspamd, Stalwart
    re.compile(rf"\bid=<?{_ID}", re.IGNORECASE),  # Exim, Halon
    re.compile(r"\bInternalId=(\d{4,40})"),  # Exchange
    re.compile(rf"\bMessage Queued \({_ID}\)", re.IGNORECASE),  # Haraka
    re.compile(rf"^(?:2\.\d\.\d )?(?:OK )?{_ID} Message accepted", re.IGNORECASE),
    re.compile(rf"\bOK,? (?:\d+ )?{_ID} - gsmtp", re.IGNORECASE),  # Google
    re.compile(r"^ok (\d+ qp \d+)", re.IGNORECASE),  # qmail
    re.compile(rf"\bqueued(?: mail)? (?:for delivery )?\(?{_ID}\)?$", re.IGNORECASE),
)
_CODE = re.compile(r"^250[ -](?:2\.\d{1,3}\.\d{1,3} )?")
MAX_TEXT = 1000
"""Characters of a reply that are searched."""


def queue_id_of(reply: str) -> str:
    """Return the id in the reply to the final dot; '' for none that is known."""
    text = reply[:MAX_TEXT]
    head = _CODE.match(text)
    if head is None:
        return ""
    rest = text[head.end() :]
    found = (form.search(rest) for form in _FORMS)
    return next((match[1].rstrip(".") for match in found if match), "")
