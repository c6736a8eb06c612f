"""The census: which recipients of the mail exist, by lists and by the primary."""
