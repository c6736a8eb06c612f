"""Tests of drainer.policy.census."""
