"""What a receiver saw of a rate: the times of MAIL, judged over every window."""

from collections.abc import Sequence


def most_over(times: Sequence[float], per_second: float) -> float:
    """Return how many messages came beyond the rate in the worst of all windows.

    A window may have any length, also none. Promise P3 holds when the result is at
    most the burst.
    """
    worst, least = 0.0, float("inf")
    for n, at in enumerate(sorted(times)):
        least = min(least, n - per_second * at)
        worst = max(worst, n + 1 - per_second * at - least)
    return worst


def achieved(times: Sequence[float]) -> float:
    """Return the rate over the whole period, in messages per second."""
    ordered = sorted(times)
    return (len(ordered) - 1) / (ordered[-1] - ordered[0])
