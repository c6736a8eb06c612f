"""Bounces: who may get one, how it is written, and how it is sent.

The decisions are pure (drainer.policy.bounce). The queued reports are in the ledger
(drainer.ledger.reports). This package gathers evidence, applies the bounce rules and
sends reports.
"""
