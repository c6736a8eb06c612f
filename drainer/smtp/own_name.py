"""Does the primary have our own name? Then we would send mail in a loop.

The banner comes before our name, so it cannot repeat it. The reply to EHLO can: there
are servers that put the client's name where theirs belongs. Another EHLO with a random
name shows whether the peer only repeats what it hears. If the peer refuses a second
EHLO, its banner decides.

An LMTP server delivers mail itself, so it makes no loop. It often runs on this host,
and then rightly has our name.
"""

import secrets

from drainer.mail.reply import Reply
from drainer.mail.reply_codes import PERMANENT
from drainer.smtp.connection import Connection
from drainer.smtp.route import Route

_NAMELESS = ("localhost", "localhost.localdomain", "")


async def has_own_name(connection: Connection, route: Route) -> bool:
    """Return whether the peer introduces itself with our name: a loop.

    It may ask the peer; the session is then as new.
    """
    if route.allow_own_name or route.speaks_lmtp:
        return False
    ours = _name(route.helo)
    if ours in _NAMELESS or ours.startswith("["):
        return False
    if _name(connection.banner.text.split(" ", 1)[0]) == ours:
        return True
    return _name(connection.peer_name) == ours and not await _repeats(connection, route)


def _name(text: str) -> str:
    return text.lower().rstrip(".")


async def _repeats(connection: Connection, route: Route) -> bool:
    """Return whether the peer repeats any name that it is given."""
    wire, name = connection.wire, f"{secrets.token_hex(8)}.invalid"
    probe = await wire.ask(f"EHLO {name}", route.timeouts.ehlo)
    await wire.ask(f"EHLO {route.helo}", route.timeouts.ehlo)
    if not isinstance(probe, Reply):
        return False
    if probe.category == PERMANENT:
        return "." in connection.banner.text.split(" ", 1)[0]  # another host's name
    return _name(probe.text.split(maxsplit=1)[0] if probe.text else "") == name
