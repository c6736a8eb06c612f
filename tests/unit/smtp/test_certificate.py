"""What `drainer check` says of a certificate."""

import hashlib
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from drainer.smtp.certificate import describe
from tests.support.tls.certificates import issue, self_signed


def test_a_certificate_is_described(tmp_path: Path) -> None:
    """Whose it is, for which names, until when, and its fingerprint."""
    pem = self_signed(tmp_path, "mail.example.org").certificate.read_text()
    der = ssl.PEM_cert_to_DER_cert(pem)
    facts = describe(der)
    assert facts["subject"] == facts["issuer"] == "CN=mail.example.org"
    assert facts["names"] == ["mail.example.org", "127.0.0.1", "::1"]
    assert facts["not_before"] < facts["not_after"]
    assert facts["sha256"] == hashlib.sha256(der).hexdigest()


def test_a_common_name_is_not_a_name(tmp_path: Path) -> None:
    """Without a subjectAltName a certificate names no host."""
    made = issue(tmp_path, "mail.example.org", [])
    facts = describe(ssl.PEM_cert_to_DER_cert(made.certificate.read_text()))
    assert facts["subject"] == "CN=mail.example.org"
    assert facts["names"] == []


def test_what_is_no_certificate_is_said_to_be_none() -> None:
    """Any bytes may come from a peer."""
    facts = describe(b"\x00 no certificate")
    assert facts["subject"].startswith("unreadable: ")
    assert facts["not_after"] == ""


def test_a_certificate_that_says_a_thing_twice_is_unreadable() -> None:
    """A peer chooses what it sends; nobody verifies it in opportunistic TLS."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    for number in ("1.2.3.4", "1.2.3.5"):
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(number), b"")
        builder = builder.add_extension(extension, critical=False)
    der = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    twice = der.replace(bytes((6, 3, 0x2A, 3, 5)), bytes((6, 3, 0x2A, 3, 4)))
    assert twice != der
    assert describe(twice)["subject"].startswith("unreadable: ")
