"""What an operator wants to know about a TLS certificate."""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
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


def public_key(der: bytes) -> bytes:
    """Return a certificate's SubjectPublicKeyInfo (DER); b'' if it cannot be read."""
    from cryptography import x509  # noqa: PLC0415 - likewise
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except ValueError:
        return b""
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def key_digest(der: bytes) -> str:
    """Return the SHA-256 of a certificate's SubjectPublicKeyInfo, in hex; '' if bad."""
    key = public_key(der)
    return hashlib.sha256(key).hexdigest() if key else ""


def is_issued_by(chain: Sequence[bytes], anchor: bytes, names: Iterable[str]) -> bool:
    """Return whether a CA vouches, now, for one of the names of a chain's leaf.

    ``chain`` are the certificates (DER) that the server sent, the leaf first. CAs of
    one's own often leave out extensions that public CAs must have.
    """
    from cryptography import x509  # noqa: PLC0415 - likewise
    from cryptography.x509 import verification  # noqa: PLC0415

    unreadable = (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)
    free = verification.ExtensionPolicy.permit_all()
    either = verification.Criticality.AGNOSTIC
    for name in names:
        with suppress(verification.VerificationError, *unreadable):
            leaf, *others = map(x509.load_der_x509_certificate, chain)
            store = verification.Store([x509.load_der_x509_certificate(anchor)])
            policy = verification.PolicyBuilder().store(store)
            policy = policy.extension_policies(
                ca_policy=free.require_present(x509.BasicConstraints, either, None),
                ee_policy=free.require_present(
                    x509.SubjectAlternativeName, either, None
                ),
            )
            policy.build_server_verifier(x509.DNSName(name)).verify(leaf, others)
            return True
    return False


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
