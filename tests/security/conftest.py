"""The hook's servers, as tests/hook has them."""

from tests.integration.watch.http.conftest import locked, servers, unlocked

__all__ = ["locked", "servers", "unlocked"]
