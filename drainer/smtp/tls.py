"""TLS as a client: the one place that makes contexts, and what they prove."""

import ssl
from typing import Any


def client_context(*, verify: bool = True) -> ssl.SSLContext:
    """Return the context of every TLS connection that drainer opens.

    ``verify`` asks for a certificate from a CA that this host trusts, in date, with
    the host among its subjectAltNames. A common name proves nothing (RFC 9525 2).
    """
    context = ssl.create_default_context()
    context.hostname_checks_common_name = False
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
