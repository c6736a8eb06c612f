"""The queue of Sendmail."""
