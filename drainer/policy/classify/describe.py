"""The meaning of a rule in a few words, for lists without room for the full reason."""

from collections.abc import Sequence

from drainer.mail.message import PROBLEMS
from drainer.policy.classify import codes
from drainer.policy.classify.rules import Rule, families

_OWN = {
    "host-limit": "this host had too few file descriptors",
    "unscanned": "waits: a scanner of [scan] does not answer",
    "breaker-open": "waits: the primary refuses this host",
    "lifetime-spent": "tried for the whole lifetime",
    "poison": "the primary ends the session at this content",
    "refused-in-doubt": "refused, but it may have arrived before",
    "contradicted-stop": "the primary refuses us for it, but accepts others",
    "dot-shared": "refused together with others; will be tried alone",
    "dot-lost": "the reply to the final dot was lost",
    "owner-died": "drainer ended during the attempt",
    "reserve-delivered": "accepted, according to the reserve of an ended run",
    "mixed-codes": "the lines of the reply disagree",
    "rcpt-too-many": "too many recipients in one transaction",
    "confirmation-due": "due for the confirming attempt",
    "unknown-recipient": PROBLEMS["unknown-recipient"][0],
    "recipient-known": "held as unknown before; a list has it now",
    "": "not tried yet",
}


def meaning_of(rule: str, own: Sequence[Rule] = ()) -> str:
    """Return the meaning of a matched rule; ``own`` are the operator's rules."""
    if rule in _OWN:
        return _OWN[rule]
    kind, _, name = rule.partition("-")
    match kind:
        case "text":
            found = (each.why for each in (*own, *families()) if each.id == name)
            return next(found, rule)
        case "enhanced":
            row = codes.ENHANCED.get(name[2:])
            return row[2] if row else rule
        case "basic" if name.isdigit() and int(name) in codes.BASIC:
            return codes.BASIC[int(name)][1]
        case "local" if name in PROBLEMS:
            return PROBLEMS[name][0]
        case "scan":
            return f"the scanner {name} objects to its content"
        case "operator":
            return f"an operator's {name}"
        case _:
            return rule.replace("-", ": ", 1)
