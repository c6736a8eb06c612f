"""A certificate of our own for peers that speak TLS."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificate:
    """A self-signed certificate, which clients trust by ``cafile``, and its key."""

    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """Return what ``Script(tls=...)`` takes."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self.key)
        return context


def self_signed(
    directory: Path, name: str = "localhost", *, days: int = 2
) -> Certificate:
    """Make a certificate for a name and both loopback addresses."""
    made = Certificate(directory / f"{name}.pem", directory / f"{name}.key")
    names = f"subjectAltName=DNS:{name},IP:127.0.0.1,IP:::1"
    command = [
        "openssl", "req", "-x509",
        "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-days", str(days), "-subj", f"/CN={name}", "-addext", names,
        "-keyout", str(made.key), "-out", str(made.certificate),
    ]  # fmt: skip
    subprocess.run(
        command, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=30
    )
    return made
