"""What an operator wants to know about a TLS certificate."""

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography import x509


def describe(der: bytes) -> dict[str, Any]:
    """Return subject, issuer, names, validity and fingerprint of a certificate.

    ``names`` are the DNS names and addresses of its subjectAltName. Without one the
    certificate is valid for no host: a common name does not name a host (RFC 9525 2).
    """
    from cryptography import x509  # noqa: PLC0415 - for those who show one

    facts: dict[str, Any] = {"sha256": hashlib.sha256(der).hexdigest()}
    try:
        certificate = x509.load_der_x509_certificate(der)
        facts |= {
            "subject": certificate.subject.rfc4514_string(),
            "issuer": certificate.issuer.rfc4514_string(),
            "not_before": certificate.not_valid_before_utc.isoformat(),
            "not_after": certificate.not_valid_after_utc.isoformat(),
            "names": _names(certificate),
        }
    except (
        ValueError,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ) as error:
        facts |= {"subject": f"unreadable: {error}", "not_after": ""}
    return facts


def key_digest(der: bytes) -> str:
    """Return the SHA-256 of a certificate's SubjectPublicKeyInfo, in hex; '' if bad."""
    from cryptography import x509  # noqa: PLC0415 - likewise
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except ValueError:
        return ""
    spki = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).hexdigest()


def _names(certificate: "x509.Certificate") -> list[str]:
    from cryptography import x509  # noqa: PLC0415 - likewise

    try:
        extension = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except x509.ExtensionNotFound:
        return []
    names: list[str] = extension.value.get_values_for_type(x509.DNSName)
    addresses = extension.value.get_values_for_type(x509.IPAddress)
    return [*names, *map(str, addresses)]
