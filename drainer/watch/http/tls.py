"""The server's certificate, as it lies there: it is renewed while a watch runs."""

import contextlib
import ssl
from pathlib import Path

from drainer.errors import UsageError


class RenewedContext:
    """Makes a context that shows everybody the latest certificate.

    Each handshake looks at the files. What cannot be read, as half of a renewal, keeps
    the old one until the next.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        """Load it; UsageError when it cannot be read."""
        self._files = (certificate, key)
        self._latest = self.context = self._loaded()
        self._stamp = self._stamped()
        self.context.sni_callback = self._renew

    def _renew(self, link: ssl.SSLObject, _name: str | None, _: ssl.SSLContext) -> None:
        """Be called at the beginning of a handshake, also without a name."""
        with contextlib.suppress(OSError, UsageError):
            stamp = self._stamped()
            if stamp != self._stamp:
                self._latest = self._loaded()
                self._stamp = stamp
        link.context = self._latest

    def _stamped(self) -> tuple[int, ...]:
        return tuple(path.stat().st_mtime_ns for path in self._files)

    def _loaded(self) -> ssl.SSLContext:
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
