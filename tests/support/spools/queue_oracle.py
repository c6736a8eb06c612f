"""The sample queues of real servers, and what each server itself delivered of them.

tests/data/make_*_samples.py made both; tests/data/queue_cases.py says how.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from drainer.mail.envelope import Envelope
from drainer.mail.message import SpooledMessage
from drainer.sources.protocol import Source
from tests.support.paths import DATA


class Delivered(TypedDict):
    """One transaction as a primary received it."""

    mail: str
    parameters: dict[str, str]
    #: Parameters by forward path.
    recipients: dict[str, dict[str, str]]
    #: One character per octet.
    content: str


def delivered(name: str) -> dict[str, Delivered]:
    """Return what the server called ``name`` delivered, by the subject of the case."""
    found: list[Delivered] = json.loads((DATA / f"{name}.json").read_text("utf-8"))
    by_subject: dict[str, Delivered] = {}
    for each in found:
        known = by_subject.setdefault(subject_of(each["content"]), each)
        known["recipients"].update(each["recipients"])
    return by_subject


def subject_of(content: str) -> str:
    """Return the text of the Subject field."""
    return content.partition("\nSubject: ")[2].partition("\r\n")[0]


def lay_out(name: str, target: Path) -> Path:
    """Copy a sample queue; reading must not touch the one that is committed."""
    shutil.copytree(DATA / name, target, copy_function=shutil.copyfile)
    return target


def content_of(spooled: SpooledMessage) -> str:
    """Return the content, one character per octet."""
    return b"".join(spooled.content.chunks()).decode("latin-1")


def read(source: Source) -> dict[str, Delivered]:
    """Return what a source reads, in the shape of ``delivered``."""
    result: dict[str, Delivered] = {}
    for spooled in source.scan():
        assert spooled.message.problem is None, spooled.message.problem
        content = content_of(spooled)
        envelope = spooled.message.envelope
        known = result.setdefault(
            subject_of(content),
            {
                "mail": envelope.reverse_path,
                "parameters": dict(_parameters(envelope)),
                "recipients": {},
                "content": content,
            },
        )
        assert known["content"] == content
        for each in envelope.recipients:
            values = {"NOTIFY": ",".join(each.notify), "ORCPT": each.orcpt_xtext()}
            known["recipients"][each.forward_path] = {
                name: value for name, value in values.items() if value
            }
    return result


def _parameters(envelope: Envelope) -> Mapping[str, str]:
    from_words = {"8bit": "8BITMIME", "7bit": "7BIT"}
    values = {
        "BODY": from_words.get(envelope.body, ""),
        "RET": envelope.ret,
        "ENVID": envelope.envid.replace("+", "+2B").replace("=", "+3D"),
    }
    return {name: value for name, value in values.items() if value}
