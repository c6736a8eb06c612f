"""Tables of thousands of rows for pure code: one test walks through all of them.

A test for each row would cost more than what it checks.
"""

from collections.abc import Callable, Iterable

import pytest


def every_row(
    rows: Iterable[object],
) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Make one test of a function that checks a row: it fails with each bad row.

    A row that is a tuple gives the function's arguments, any other its only one.
    """
    table = [row if isinstance(row, tuple) else (row,) for row in rows]

    def decorate(check: Callable[..., None]) -> Callable[[], None]:
        def test() -> None:
            assert table
            failures = []
            for row in table:
                try:
                    check(*row)
                except (AssertionError, pytest.fail.Exception) as error:
                    failures.append(f"{row}: {error}")
            assert not failures, "\n\n".join(failures)

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        test.__module__ = check.__module__
        return test

    return decorate
