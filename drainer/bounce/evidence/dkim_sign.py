"""A DKIM signature for our reports, so that receivers accept them."""

from drainer.errors import UsageError

_SIGNED = (
    b"from", b"to", b"subject", b"date", b"message-id", b"in-reply-to", b"references",
    b"auto-submitted", b"mime-version", b"content-type",
)  # fmt: skip


def sign(report: bytes, *, domain: str, selector: str, key: bytes) -> bytes:
    """Return a report with a signature on top.

    ``key`` is an RSA key in PEM, or an Ed25519 key as 32 bytes in base64 (RFC 8463).
    ``domain`` is that of the report's From. Raises UsageError for a bad key.
    """
    import dkim  # noqa: PLC0415 - a tenth of what a drain loads, for those who sign

    algorithm = (
        b"rsa-sha256" if key.lstrip().startswith(b"-----") else b"ed25519-sha256"
    )
    signer = dkim.DKIM(report, signature_algorithm=algorithm)
    present = [name.lower() for name, _ in signer.headers]
    names = [name for name in _SIGNED if name in present]
    try:
        field = signer.sign(
            selector.encode(),
            domain.encode(),
            key.replace(b"\r\n", b"\n").strip() + b"\n"
            if algorithm == b"rsa-sha256"
            else key.strip(),
            canonicalize=(b"relaxed", b"simple"),
            include_headers=[*names, b"from"],  # one more: no second From may be added
        )
    except (dkim.DKIMException, ValueError, TypeError) as error:
        raise UsageError(f"the DKIM key cannot sign: {error}") from None
    return bytes(field) + report
