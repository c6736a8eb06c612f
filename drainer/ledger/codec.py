"""Messages and claims as rows, and back."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from drainer.ledger.columns import from_json, storable, to_json
from drainer.ledger.records import (
    Row,
    ScanRow,
    from_micros,
    to_micros,
)
from drainer.mail.envelope import (
    AddressError,
    Client,
    Envelope,
    Recipient,
    verp_sender,
)
from drainer.mail.message import Message, Problem
from drainer.policy.admission.selection import MessageSummary
from drainer.policy.recipient.delivery import ClaimedRecipient, ScannedMessage
from drainer.policy.recipient.state import State


def listing_of(scanned: ScannedMessage, content: bytes | None) -> ScanRow:
    """Return a scanned message as rows; ``content`` is its content when small."""
    return ScanRow(
        message=_message_row(scanned),
        recipients=_recipient_rows(scanned),
        facts=scanned.facts,
        content=content,
    )


def _message_row(scanned: ScannedMessage) -> Row:
    message = scanned.spooled.message
    problem = scanned.problem
    size = scanned.facts.size_bytes if scanned.facts else message.size_bytes
    return {
        "identity": message.identity,
        "sha256": scanned.facts.sha256 if scanned.facts else "",
        "source": message.source,
        "native_id": message.native_id,
        "queue": message.queue,
        "locator": message.locator,
        "arrived": to_micros(message.arrived),
        "reverse_path": message.envelope.reverse_path,
        "size": size,
        "message_id": message.message_id,
        "details": to_json(_details(message, problem)),
        "problem": problem.code if problem else "",
        "recipients": len(scanned.problems),
    }


def _details(message: Message, problem: Problem | None) -> Row:
    envelope, client = message.envelope, message.client
    pairs = {
        "done": list(envelope.done),
        "body": envelope.body,
        "smtputf8": envelope.smtputf8,
        "envid": envelope.envid,
        "ret": envelope.ret,
        "verp": envelope.verp,
        "client": [client.address, client.name, client.helo],
        "login": message.login,
        "flags": list(message.flags),
        "problem": problem.detail if problem else "",
    }
    return {key: value for key, value in pairs.items() if value}


def _recipient_rows(scanned: ScannedMessage) -> list[Row]:
    """Return a row per recipient; one without an address when none is known."""
    message = scanned.spooled.message
    known = message.envelope.recipients
    if not known and scanned.problem:
        known = (Recipient(forward_path=""),)
    return [
        {
            "n": n,
            "forward_path": recipient.forward_path,
            "route": route,
            "orcpt": storable(recipient.orcpt),
            "notify": ",".join(recipient.notify),
            "state": str(State.HELD if problem else State.PENDING),
            "due": None if problem else 0,
            "attempts": 0,
            "doubts": 0,
            "released": 0,
            "refused": None,
            "attempt": None,
            "rule": f"local-{problem.code}" if problem else "",
            "reply": storable(problem.detail) if problem else "",
        }
        for n, (recipient, problem, route) in enumerate(
            zip(known, scanned.problems, scanned.routes, strict=True)
        )
    ]


def message_of(
    row: Mapping[str, Any], recipients: tuple[Recipient, ...] = ()
) -> Message:
    """Rebuild a message; its envelope holds just the recipients given."""
    details = from_json(row["details"])
    problem = row["problem"]
    client = details.get("client", ["", "", ""])
    return Message(
        identity=row["identity"],
        number=row["number"],
        sha256=row["sha256"],
        has_twin=bool(row["has_twin"]),
        source=row["source"],
        native_id=row["native_id"],
        queue=row["queue"],
        locator=row["locator"],
        arrived=from_micros(row["arrived"]),
        envelope=Envelope(
            reverse_path=row["reverse_path"],
            recipients=recipients,
            done=tuple(details.get("done", ())),
            body=details.get("body", ""),
            smtputf8=details.get("smtputf8", False),
            envid=details.get("envid", ""),
            ret=details.get("ret", ""),
            verp=details.get("verp", ""),
        ),
        size_bytes=row["size"],
        client=Client(address=client[0], name=client[1], helo=client[2]),
        login=details.get("login", ""),
        flags=tuple(details.get("flags", ())),
        message_id=row["message_id"],
        problem=Problem(code=problem, detail=details.get("problem", ""))
        if problem
        else None,
    )


def known_of(row: Mapping[str, Any]) -> MessageSummary:
    """Return what a selection asks about a message."""
    return MessageSummary(
        id=row["id"],
        native_id=row["native_id"],
        message_id=row["message_id"],
        reverse_path=row["reverse_path"],
        queue=row["queue"],
        arrived=from_micros(row["arrived"]),
        size=row["size"],
    )


def recipient_of(row: Mapping[str, Any]) -> Recipient:
    """Rebuild a recipient."""
    return Recipient(
        forward_path=row["forward_path"],
        orcpt=row["orcpt"],
        notify=tuple(filter(None, row["notify"].split(","))),
    )


def claimed_of(row: Mapping[str, Any]) -> ClaimedRecipient:
    """Rebuild a recipient together with its history."""
    return ClaimedRecipient(
        n=row["n"],
        recipient=recipient_of(row),
        state=State(row["state"]),
        attempts=row["attempts"],
        doubts=row["doubts"],
        released=bool(row["released"]),
        drops=row["drops"],
        solo=bool(row["solo"]),
        spent=timedelta(microseconds=row["spent"]),
        refusal=row["refusal"],
        refused=None if row["refused"] is None else from_micros(row["refused"]),
    )


MAX_SENDER = 512
"""Characters of a sender that the ledger keeps."""


def sender_of(envelope: Envelope, recipient: Recipient) -> str:
    """Return the address that gets reports on a recipient: VERP gives each its own."""
    if not envelope.verp:
        return envelope.reverse_path
    path = recipient.original or recipient.forward_path
    try:
        expanded = verp_sender(envelope.reverse_path, path, envelope.verp)
    except AddressError:
        return envelope.reverse_path
    return expanded[:MAX_SENDER]
