"""Sample spools of real servers, and what the servers themselves make of them.

tests/data/make_postfix_samples.py and make_exim_samples.py made them and say how.
"""

import json
import shutil
from pathlib import Path
from typing import Final, NotRequired, TypedDict

from tests.support.paths import DATA

_QUEUES: Final = (
    "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming",
    "maildrop", "saved", "trace",
)  # fmt: skip


class SampleRecipient(TypedDict):
    """A recipient still to do, as postcat prints its records."""

    address: str
    original: NotRequired[str]
    orcpt: NotRequired[str]
    notify: NotRequired[str]


class Oracle(TypedDict):
    """What postcat reads. Addresses are unquoted, times are UTC."""

    #: Absent from a file that was not cleaned yet, as all that is not required.
    sendopts: NotRequired[int]
    created: NotRequired[str]
    arrived: str
    sender: str
    recipients: list[SampleRecipient]
    #: Delivered or bounced.
    done: list[str]
    canceled: list[str]
    redirect_to: NotRequired[str]
    content_filter: NotRequired[str]
    verp_delimiters: NotRequired[str]
    attributes: dict[str, str]
    #: Of the content with LF line ends.
    size: int
    sha256: str


class Sample(TypedDict):
    """One message file."""

    case: str
    #: Octal.
    mode: str
    #: None for a file that is incomplete or that Postfix itself set aside.
    oracle: Oracle | None


def postfix_samples() -> dict[str, Sample]:
    """Return the message files by their path below the queue directory."""
    text = (DATA / "postfix.json").read_text(encoding="utf-8")
    files: dict[str, Sample] = json.loads(text)["files"]
    return files


def lay_out_postfix(dest: Path) -> Path:
    """Copy the sample queue to a directory as it lay on the backup; return that.

    Git keeps neither empty directories nor modes, and to Postfix mode 0700 means a
    complete file.
    """
    shutil.copytree(
        DATA / "postfix", dest, dirs_exist_ok=True, copy_function=shutil.copyfile
    )
    for path in dest.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    for queue in _QUEUES:
        (dest / queue).mkdir(mode=0o700, exist_ok=True)
    for name, sample in postfix_samples().items():
        (dest / name).chmod(int(sample["mode"], 8))
    return dest


class EximTransaction(TypedDict):
    """What Exim sent from a message to a server that takes everything."""

    reverse_path: str
    #: Of MAIL, and of RCPT by the forward-path.
    parameters: dict[str, str]
    recipients: dict[str, dict[str, str]]
    #: Of the content with CRLF line ends.
    size: int
    sha256: str


class EximSample(TypedDict):
    """One message: the name of its case, and the transactions."""

    case: str
    sent: list[EximTransaction]


def exim_samples() -> dict[str, EximSample]:
    """Return the messages by the path of their -H below the spool directory."""
    text = (DATA / "exim.json").read_text(encoding="utf-8")
    files: dict[str, EximSample] = json.loads(text)["files"]
    return files


def lay_out_exim(dest: Path) -> Path:
    """Copy the sample spool to a directory; return that."""
    shutil.copytree(DATA / "exim", dest, dirs_exist_ok=True)
    return dest
