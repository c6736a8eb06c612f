"""Pure code: sources/sendmail."""
