"""TLS as a client: the one place that makes contexts, and what they prove."""

import ssl
import warnings
from typing import Any

_USUAL = "1.2"
_VERSIONS = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}
_OLD = ("1.0", "1.1")
"""Deprecated versions; their signatures need a low security level of OpenSSL."""


def client_context(*, verify: bool = True, minimum: str = _USUAL) -> ssl.SSLContext:
    """Return the context of every TLS connection that drainer opens.

    ``verify`` asks for a certificate from a CA that this host trusts, in date, with
    the host among its subjectAltNames. A common name proves nothing (RFC 9525 2).
    ``minimum`` is the lowest version of TLS.
    """
    context = ssl.create_default_context()
    context.hostname_checks_common_name = False
    if minimum != _USUAL:  # what OpenSSL and Python allow by themselves
        with warnings.catch_warnings():  # Python deprecates the old versions
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = _VERSIONS[minimum]
    if minimum in _OLD:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    if not verify:
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
