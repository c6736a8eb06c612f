"""What a rule means, in a few words: for lists, where the whole reason is too long."""

from collections.abc import Sequence

from drainer.mail.message import PROBLEMS
from drainer.policy.classify import codes
from drainer.policy.classify.families import families
from drainer.policy.classify.rules import Rule

_OWN = {
    "host-limit": "this host had too few file descriptors",
    "breaker-open": "waits, because the primary refuses this host",
    "lifetime-spent": "tried for as long as it may be",
    "poison": "the primary ends the session at this content",
    "refused-in-doubt": "refused, after it may have arrived",
    "contradicted-stop": "refused as if it were us, while others are accepted",
    "dot-shared": "refused together with others, tried alone",
    "dot-lost": "the reply to the final dot was lost",
    "owner-died": "drainer ended with the attempt open",
    "reserve-delivered": "accepted, as the reserve of an ended run shows",
    "mixed-codes": "the lines of the reply disagree",
    "rcpt-too-many": "too many recipients in one transaction",
    "ripe": "due for the confirming attempt",
    "": "not tried yet",
}


def meaning_of(rule: str, own: Sequence[Rule] = ()) -> str:
    """Return the meaning of a rule that fired; ``own`` are the operator's rules."""
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
        case "operator":
            return f"an operator's {name}"
        case _:
            return rule.replace("-", ": ", 1)
