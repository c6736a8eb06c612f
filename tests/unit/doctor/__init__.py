"""Pure code: doctor."""
