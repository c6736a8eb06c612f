"""Rates, the AIMD controller and the operator's overrides. Pure."""
