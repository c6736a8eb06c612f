"""The two test messages that every filter knows and that are harmless.

GTUBE is SpamAssassin's, EICAR is that of virus scanners. The strings are assembled
here, so that no scanner takes this file for one of them.
"""

from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid

_GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*", "GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
_EICAR = r"X5O!P%@AP[4\PZX54(P^)7CC)7}", "$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"


def gtube(recipient: str, hostname: str, now: datetime) -> bytes:
    """Return a message that every spam filter detects as spam, with CRLF."""
    message = _message("GTUBE", recipient, hostname, now)
    message.set_content(f"A test of your spam filter.\n\n{''.join(_GTUBE)}\n")
    return message.as_bytes()


def eicar(recipient: str, hostname: str, now: datetime) -> bytes:
    """Return a message with a file that every scanner detects as a virus, with CRLF."""
    message = _message("EICAR", recipient, hostname, now)
    message.set_content("A test of your virus scanner: the attached file is harmless.")
    message.add_attachment(
        "".join(_EICAR).encode(),
        maintype="application",
        subtype="octet-stream",
        filename="eicar.com",
    )
    return message.as_bytes()


def _message(name: str, recipient: str, hostname: str, now: datetime) -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    message["From"] = f"drainer doctor <drainer-doctor@{hostname}>"
    message["To"] = recipient
    message["Subject"] = f"{name}: a test of this server's filter that you asked for"
    message["Date"] = format_datetime(now)
    message["Message-ID"] = make_msgid(domain=hostname)
    message["Auto-Submitted"] = "auto-generated"
    return message
