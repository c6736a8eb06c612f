"""What `drainer check` says of a certificate."""

import hashlib
import ssl
from pathlib import Path

from drainer.mail.certificate import describe
from tests.certificates import self_signed


def test_a_certificate_is_described(tmp_path: Path) -> None:
    """Whose it is, for which names, until when, and its fingerprint."""
    pem = self_signed(tmp_path, "mail.example.org").certificate.read_text()
    der = ssl.PEM_cert_to_DER_cert(pem)
    facts = describe(der)
    assert facts["subject"] == facts["issuer"] == "CN=mail.example.org"
    assert facts["names"] == ["mail.example.org"]
    assert facts["not_before"] < facts["not_after"]
    assert facts["sha256"] == hashlib.sha256(der).hexdigest()


def test_what_is_no_certificate_is_said_to_be_none() -> None:
    """Any octets may come from a peer."""
    facts = describe(b"\x00 no certificate")
    assert facts["subject"].startswith("unreadable: ")
    assert facts["not_after"] == ""
