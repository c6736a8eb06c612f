"""How much of each claimed message is still under way, on all routes together."""


class MessageClaims:
    """Counts the parts of messages; the claim ends with the last part."""

    def __init__(self) -> None:
        """Start with nothing under way."""
        self._parts: dict[str, int] = {}

    def add(self, message: str) -> None:
        """Count one more part of a message, by its id."""
        self._parts[message] = self._parts.get(message, 0) + 1

    def end(self, message: str) -> bool:
        """Count one part less; return True when nothing of the message is left."""
        left = self._parts.pop(message, 0) - 1
        if left > 0:
            self._parts[message] = left
        return left <= 0
