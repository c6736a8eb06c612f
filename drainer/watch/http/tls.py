"""The server's certificate, read again when its files change while a watch runs."""

import contextlib
import ssl
from pathlib import Path

from drainer.errors import UsageError


class RenewedContext:
    """Makes a context that shows every client the latest certificate.

    Each handshake checks the files. If they cannot be read, as in the middle of a
    renewal, the old one is used until the next handshake.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        """Load it; raise UsageError if it cannot be read."""
        self._files = (certificate, key)
        self._latest = self.context = self._load()
        self._stamp = self._modification_times()
        self.context.sni_callback = self._renew

    def _renew(self, link: ssl.SSLObject, _name: str | None, _: ssl.SSLContext) -> None:
        """Run at the start of a handshake, also without a server name."""
        with contextlib.suppress(OSError, UsageError):
            stamp = self._modification_times()
            if stamp != self._stamp:
                self._latest = self._load()
                self._stamp = stamp
        link.context = self._latest

    def _modification_times(self) -> tuple[int, ...]:
        return tuple(path.stat().st_mtime_ns for path in self._files)

    def _load(self) -> ssl.SSLContext:
        certificate, key = self._files
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(certificate, key)
        except (OSError, ssl.SSLError) as error:
            message = (
                f"the certificate {certificate} with {key} cannot be read: {error}"
            )
            hint = "both are PEM files; see [hook] tls_cert and tls_key"
            raise UsageError(message, hint=hint) from None
        return context
