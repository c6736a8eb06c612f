"""Tests with real sockets, files and servers."""
