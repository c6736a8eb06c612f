"""Pure code: sources/opensmtpd."""
