"""TLS as a client: the one place that makes contexts, and what they prove."""

import ssl
import warnings
from typing import Any

from msgspec import Struct

_USUAL = "1.2"
_VERSIONS = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}
_OLD = ("1.0", "1.1")
"""Deprecated versions; their signatures need a low security level of OpenSSL."""


class TlsFiles(Struct, frozen=True, kw_only=True):
    """What proves either side beside the CAs that this host trusts."""

    #: Path of CA certificates (PEM) to trust instead; '' = those of this host.
    ca: str = ""
    #: Paths of our certificate and its key (PEM), and the key's password.
    cert: str = ""
    key: str = ""
    key_password: str = ""
    #: SHA-256 of public keys (SubjectPublicKeyInfo), in hex: the server's must be one
    #: of them, and then no CA is asked.
    pin: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return it without the password."""
        shown = (self.ca, self.cert, self.key, self.pin)
        return f"TlsFiles{shown}"


NO_FILES = TlsFiles()


def client_context(
    *, verify: bool = True, minimum: str = _USUAL, files: TlsFiles = NO_FILES
) -> ssl.SSLContext:
    """Return the context of every TLS connection that drainer opens.

    ``verify`` asks for a certificate from a CA that this host trusts, in date, with
    the host among its subjectAltNames. A common name proves nothing (RFC 9525 2).
    ``minimum`` is the lowest version of TLS. Raises OSError (ssl.SSLError included) for
    files that cannot be used.
    """
    context = ssl.create_default_context(cafile=files.ca or None)
    if files.cert:
        context.load_cert_chain(
            files.cert, files.key or None, lambda: files.key_password
        )
    context.hostname_checks_common_name = False
    if minimum != _USUAL:  # what OpenSSL and Python allow by themselves
        with warnings.catch_warnings():  # Python deprecates the old versions
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = _VERSIONS[minimum]
    if minimum in _OLD:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    if not verify or files.pin:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def tls_facts(session: Any) -> dict[str, object]:  # noqa: ANN401 - uvloop's has no type
    """Return protocol, cipher, certificate (hex of DER) and whether it was verified.

    ``session`` is an ssl.SSLObject; {} when there is none.
    """
    if session is None:
        return {}
    cipher, der = session.cipher(), session.getpeercert(binary_form=True)
    facts: dict[str, object] = {
        "tls": session.version(),
        "cipher": cipher[0] if cipher else "",
        "verified": session.context.verify_mode == ssl.CERT_REQUIRED,
    }
    return facts | ({"certificate_der": der.hex()} if der else {})
