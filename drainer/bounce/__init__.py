"""Bounces: who may get one, how it is written, and how it is sent.

What is decided is pure (drainer.policy.bounce). What is promised is in the ledger
(drainer.ledger.reports). This package asks the questions and sends the reports.
"""
