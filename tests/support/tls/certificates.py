"""A certificate of our own for peers that speak TLS."""

import ssl
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


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


def expired(directory: Path, name: str) -> Certificate:
    """Make a self-signed certificate that ended yesterday: openssl req cannot."""
    return issue(directory, name, [x509.DNSName(name)], days=(-30, -1))


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA of our own: its certificate, which clients trust by ``cafile``, and key."""

    made: Certificate
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def authority(directory: Path, name: str = "ca") -> Authority:
    """Make a CA."""
    made = issue(directory, name, [], is_ca=True)
    key = serialization.load_pem_private_key(made.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    loaded = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    return Authority(made, loaded, key)


def issue(  # noqa: PLR0913 - a certificate says that much
    directory: Path,
    name: str,
    names: Sequence[x509.GeneralName],
    *,
    common_name: str = "",
    days: tuple[int, int] = (-1, 30),
    issuer: Authority | None = None,
    is_ca: bool = False,
) -> Certificate:
    """Make a certificate for these names; without an issuer it is self-signed.

    It is valid from and until so many days from now. Without names it has no
    subjectAltName.
    """
    made = Certificate(directory / f"{name}.pem", directory / f"{name}.key")
    key = ec.generate_private_key(ec.SECP256R1())
    cn = x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name or name)
    subject, now = x509.Name([cn]), datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(is_ca, None), critical=True)
    )
    if names:
        extension = x509.SubjectAlternativeName(names)
        builder = builder.add_extension(extension, critical=False)
    signed = builder.sign(issuer.key if issuer else key, hashes.SHA256())
    made.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    made.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return made
