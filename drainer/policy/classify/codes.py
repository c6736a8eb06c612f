"""Reply codes as data: the basic codes, and the whole IANA registry of RFC 5248.

A row is ``(with class 4, with class 5, meaning)``. None: the code is too generic, so
the basic code decides.

The registry is that of 2024-12-06.
"""

from drainer.policy.classify.verdict import Action

# Short names of the actions, for the tables only.
R, L = Action.RETRY, Action.RETRY_LONG
B, M = Action.BOUNCE, Action.BOUNCE_MESSAGE
H = Action.HOLD
S, P, D = Action.STOP, Action.STOP_BRIEFLY, Action.STOP_DOMAIN

CodeRow = tuple[Action | None, Action | None, str]

_CHOOSY = [f"7.{n}" for n in range(120, 137)]
"""Exchange's codes for a recipient that takes mail from some senders only."""
_GENERIC_OF_RECIPIENTS = ("1.0", "2.0")

ENHANCED: dict[str, CodeRow] = {
    "0.0": (None, None, "undefined status"),
    "1.0": (None, None, "other address status"),
    "1.1": (R, B, "the mailbox does not exist"),
    "1.2": (R, D, "the primary does not serve this recipient domain"),
    "1.3": (R, B, "the recipient's address has bad syntax"),
    "1.4": (R, H, "the recipient's address is ambiguous"),
    "1.5": (R, H, "a success code in a refusal (address valid)"),
    "1.6": (R, B, "the mailbox moved and left no address"),
    "1.7": (R, M, "the sender's address has bad syntax"),
    "1.8": (R, M, "the sender's domain is bad or does not resolve"),
    "1.9": (R, H, "a success code in a refusal (relayed)"),
    "1.10": (R, D, "the recipient domain accepts no mail (null MX)"),
    "2.0": (R, B, "other mailbox status"),
    "2.1": (L, B, "the mailbox is disabled or rate-limited"),
    "2.2": (L, L, "the mailbox is full"),
    "2.3": (R, B, "over the mailbox's message size limit"),
    "2.4": (L, B, "the mailing list cannot be expanded"),
    "3.0": (R, H, "other status of the mail system"),
    "3.1": (P, S, "the primary's disk is full"),
    "3.2": (P, S, "the primary accepts no mail now"),
    "3.3": (R, M, "a feature that the message needs is not supported"),
    "3.4": (H, M, "the message is too big for the primary"),
    "3.5": (P, S, "the primary is configured wrongly"),
    "3.6": (R, H, "a success code in a refusal (priority changed)"),
    "4.0": (R, H, "other network status"),
    "4.1": (R, H, "no answer from a host behind the primary"),
    "4.2": (R, H, "bad connection behind the primary"),
    "4.3": (R, S, "the primary's directory server failed"),
    "4.4": (R, D, "the primary cannot route to this domain"),
    "4.5": (P, H, "the primary's mail system is congested"),
    "4.6": (H, H, "a routing loop was found"),
    "4.7": (R, H, "the queue of another system expired"),
    "5.0": (R, H, "other protocol status"),
    "5.1": (R, H, "the primary saw an invalid command"),
    "5.2": (R, H, "the primary saw a syntax error"),
    "5.3": (R, R, "too many recipients in one transaction"),
    "5.4": (R, H, "invalid command parameters"),
    "5.5": (R, H, "wrong protocol version"),
    "5.6": (S, S, "the AUTH exchange was too long"),
    "6.0": (R, M, "other content error"),
    "6.1": (R, M, "the media type is not supported"),
    "6.2": (R, M, "conversion is required and prohibited"),
    "6.3": (R, M, "conversion is required and not supported"),
    "6.4": (R, M, "conversion with loss"),
    "6.5": (R, M, "conversion failed"),
    "6.6": (R, M, "the message content is not available"),
    "6.7": (R, B, "a non-ASCII address is not permitted"),
    "6.8": (R, H, "a UTF-8 reply is required"),
    "6.9": (R, M, "a UTF-8 header cannot be transferred"),
    "6.10": (R, H, "a UTF-8 reply is required"),
    "7.0": (None, None, "other security status"),
    "7.1": (None, None, "delivery not authorised"),
    "7.2": (R, B, "the mailing list is closed to this sender"),
    "7.3": (R, M, "a security conversion is not possible"),
    "7.4": (R, H, "a security feature is not supported"),
    "7.5": (R, H, "a cryptographic failure"),
    "7.6": (R, H, "a cryptographic algorithm is not supported"),
    "7.7": (R, M, "the message's integrity check failed"),
    "7.8": (S, S, "our credentials are wrong"),
    "7.9": (S, S, "our authentication mechanism is too weak"),
    "7.10": (S, S, "the primary demands encryption"),
    "7.11": (S, S, "the mechanism needs encryption"),
    "7.12": (S, S, "our password must be changed"),
    "7.13": (L, B, "the account is disabled"),
    "7.14": (S, S, "the primary demands a trust relationship"),
    "7.15": (L, H, "the message's priority is too low"),
    "7.16": (L, M, "too big for the message's priority"),
    "7.17": (R, B, "the mailbox has another owner now"),
    "7.18": (R, B, "the domain has another owner now"),
    "7.19": (R, H, "the owner of the mailbox cannot be checked"),
    "7.20": (R, M, "no passing DKIM signature"),
    "7.21": (R, M, "no acceptable DKIM signature"),
    "7.22": (R, M, "no DKIM signature of the author's domain"),
    "7.23": (R, H, "SPF failed, most likely for our own address"),
    "7.24": (R, H, "SPF could not be checked"),
    "7.25": (S, S, "our address has no matching reverse DNS"),
    "7.26": (R, H, "several authentication checks failed"),
    "7.27": (R, M, "the sender's domain has a null MX"),
    "7.28": (P, S, "the primary sees a mail flood"),
    "7.29": (R, M, "the ARC chain is broken"),
    "7.30": (R, M, "REQUIRETLS is not supported"),
    # Microsoft's own codes, outside the registry
    **{f"7.{n}": (P, None, "the primary slows us down") for n in range(500, 700)},
    **{f"7.{n}": (P, None, "the primary slows us down") for n in range(850, 900)},
    **{f"7.{n}": (P, S, "our address is banned") for n in range(606, 650)},
    "7.509": (P, H, "DMARC failed, most likely for our own address"),
    **dict.fromkeys(_CHOOSY, (R, B, "the recipient chooses its senders")),
    "7.505": (P, B, "the recipient is banned"),
    "7.506": (P, S, "our name is refused"),
    "7.507": (P, S, "the recipient's organisation blocks our address"),
    "7.508": (P, P, "our address exceeds its limits"),
    "7.510": (P, S, "the primary takes no mail over IPv6"),
    "7.511": (P, S, "our address is banned"),
    "7.512": (P, M, "the message breaks a rule of the format"),
    "7.513": (P, S, "the recipient's organisation blocks our address"),
    "7.515": (P, H, "the sender's authentication is not enough"),
    "7.51": (P, S, "a connector of the primary refuses us"),
    "7.54": (P, D, "the primary does not accept this domain"),
    "7.57": (P, S, "the primary wants authentication"),
    "7.60": (P, H, "we have no permission to send as this sender"),
    "7.64": (P, S, "relay access denied for this tenant"),
    "7.367": (P, D, "relay access denied behind the primary"),
    **{f"7.{n}": (P, S, "the tenant may not send") for n in (703, 705, 708, 750)},
    "2.121": (L, L, "mail reaches the mailbox faster than its limits allow"),
    "2.122": (L, L, "mail reaches the mailbox faster than its limits allow"),
    **{f"4.{n}": (R, H, "the primary cannot pass mail on") for n in range(300, 400)},
    "4.317": (R, S, "the primary demands encryption"),
    "4.11": (H, H, "too many agents handled the message"),
    "4.14": (H, H, "a routing loop was found"),
    "6.11": (R, H, "the message has bare line feeds"),
}

DIALECTS: dict[tuple[int, str], CodeRow] = {
    (521, "2.1"): (P, S, "the host accepts no mail from us (AOL)"),
    (541, "4.1"): (R, M, "rejected as spam (Zoho)"),
}
"""A basic code and a detail that mean something else together; tried first."""


def is_of_recipient(detail: str) -> bool:
    """Return whether a detail is about an address: no text makes a stop of it."""
    is_specific = detail[:2] in ("1.", "2.") and detail not in _GENERIC_OF_RECIPIENTS
    return is_specific or detail in _CHOOSY


OUTRANKING = frozenset((432, 530, 534, 535, 538))
"""Basic codes that no enhanced code outranks: they are about us, or a rate limit.

``530 5.5.1`` demands a login, ``432 4.3.2`` throttles a mailbox. An enhanced code
outranks 52x: OpenSMTPD's ``524 5.2.4`` is about an unknown user, not about encryption.
"""

BASIC: dict[int, tuple[Action, str]] = {
    421: (P, "the primary closes the channel"),
    432: (L, "a password transition, or a throttled mailbox"),
    450: (R, "the mailbox is unavailable now, or greylisting"),
    451: (R, "a local error at the primary"),
    452: (R, "not enough storage at the primary now"),
    454: (P, "TLS or authentication is not available now"),
    455: (R, "parameters cannot be accommodated now"),
    500: (H, "the primary did not understand a command"),
    501: (H, "the primary saw a syntax error in a parameter"),
    502: (H, "the primary does not implement a command"),
    503: (H, "the primary saw a bad sequence of commands"),
    504: (H, "the primary does not implement a parameter"),
    521: (S, "the host accepts no mail"),
    523: (S, "encryption or authentication is demanded"),
    524: (S, "encryption or authentication is demanded"),
    525: (S, "our account is disabled"),
    530: (S, "authentication is required"),
    534: (S, "our authentication mechanism is too weak"),
    535: (S, "our credentials are invalid"),
    538: (S, "the mechanism needs encryption"),
    541: (M, "rejected as spam"),
    550: (B, "the mailbox is unavailable"),
    551: (B, "the user is not local"),
    552: (B, "storage allocation exceeded"),
    553: (B, "the mailbox name is not allowed"),
    554: (B, "the transaction failed"),
    555: (H, "a parameter of MAIL or RCPT is not known"),
    556: (D, "the domain accepts no mail"),
}
