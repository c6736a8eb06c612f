"""How much of each claimed message is still under way, on all routes together."""

from collections import Counter


class MessageClaims:
    """Counts the parts of messages; the claim ends with the last part."""

    def __init__(self) -> None:
        """Start with nothing under way."""
        self._parts: Counter[str] = Counter()

    def add(self, message: str) -> None:
        """Count one more part of a message, by its id."""
        self._parts[message] += 1

    def end(self, message: str) -> bool:
        """Count one part less; return True when nothing of the message is left."""
        self._parts[message] -= 1
        last = self._parts[message] <= 0
        if last:
            del self._parts[message]
        return last
