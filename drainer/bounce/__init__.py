"""Bounces: evidence about the sender, the bounce rules (policy.bounce), and reports."""
