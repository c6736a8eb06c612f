"""Tests of drainer, and the real servers and scripted peers they run against."""
