"""Checks of this host, which will run the drain; pure."""

from drainer.doctor.checks.check import (
    Check,
    CheckResult,
    fail,
    ok,
    skip,
    unknown,
    warn,
)
from drainer.doctor.checks.facts import HostFacts, Space, Trial

SKEW_SECONDS = 300
"""A larger difference between clocks breaks SPF, DKIM and retries."""

LEAST_BYTES, FEW_BYTES = 256 * 10**6, 2 * 10**9
LEAST_INODES, FEW_INODES = 1_000, 20_000
"""Of free space: less is a failure, or a warning."""


def _clock(here: HostFacts) -> CheckResult:
    differs = {h: s for h, s in here.ahead.items() if abs(s) > SKEW_SECONDS}
    words = "; ".join(f"{_ahead(s)} {host}" for host, s in differs.items())
    if differs and here.synchronised:
        return warn(f"{words}; a time service sets this clock, so theirs is wrong")
    if differs:
        return fail(words)
    if here.synchronised:
        return ok("a time service sets it")
    if here.ahead:
        return ok(f"the same as in the banner of {', '.join(here.ahead)}")
    if here.synchronised is None:
        return unknown("the kernel does not say, and no banner has a date")
    return warn("the kernel says that no time service sets it")


def _ahead(seconds: float) -> str:
    return f"{abs(seconds):.0f} s {'ahead of' if seconds > 0 else 'behind'}"


def _check_space(space: Space) -> CheckResult:
    subject = f"{space.what} {space.path}"
    if space.problem:
        return unknown(space.problem, subject)
    words = f"{space.free_bytes / 10**9:.1f} GB free"
    if space.free_bytes < LEAST_BYTES:
        return fail(words, subject)
    return warn(words, subject) if space.free_bytes < FEW_BYTES else ok(words, subject)


def _check_inodes(space: Space) -> CheckResult:
    subject = f"{space.what} {space.path}"
    if space.free_inodes is None:
        return ok("no fixed number of inodes", subject)
    words = f"{space.free_inodes} inodes free"
    if space.free_inodes < LEAST_INODES:
        return fail(words, subject)
    few = space.free_inodes < FEW_INODES
    return warn(words, subject) if few else ok(words, subject)


def _files(here: HostFacts) -> CheckResult:
    words = f"{here.files_allowed} allowed, {here.files_needed} needed"
    return ok(words) if here.files_allowed >= here.files_needed else fail(words)


def _sources(here: HostFacts) -> CheckResult | list[CheckResult]:
    if not here.sources:
        return skip("no [sources.NAME] is configured")
    return [_check_trial(trial) for trial in here.sources]


def _check_trial(trial: Trial) -> CheckResult:
    if trial.problem:
        return fail(trial.problem, trial.name)
    if trial.unsure:
        return unknown(trial.unsure, trial.name)
    return ok(trial.found, trial.name)


CHECKS: tuple[Check[HostFacts], ...] = (
    Check(
        id="host-clock",
        about="this host's clock is right",
        unless="it is 5 minutes off the date in a server's banner; warns: no time"
        " service sets it, or only a server's clock is off",
        remedy="run chrony or systemd-timesyncd; set the clock before a drain",
        look=_clock,
    ),
    Check(
        id="host-disk",
        about="there is space for the ledger and the quarantine",
        unless="under 256 MB are free; warns: under 2 GB",
        remedy="free some space, or move the ledger with [ledger] url: a drain stops"
        " when it cannot write",
        look=lambda here: [_check_space(space) for space in here.spaces],
    ),
    Check(
        id="host-inodes",
        about="there are inodes for the copies in quarantine",
        unless="under 1000 are free; warns: under 20000",
        remedy="remove small files there, or move the ledger with [ledger] url",
        look=lambda here: [
            _check_inodes(each) for each in here.spaces if not each.problem
        ],
    ),
    Check(
        id="host-files",
        about="the limit of open files is enough for [primary] connections",
        unless="the limit is less than three for each connection, plus 40",
        remedy="raise it (`ulimit -n`, systemd: `LimitNOFILE`), or lower [primary]"
        " connections",
        look=_files,
    ),
    Check(
        id="host-ledger",
        about="the ledger can be written",
        unless="a transaction, rolled back at once, fails",
        remedy="run it as the user that drains; check the path, its owner and its mode",
        look=lambda here: _check_trial(here.ledger),
    ),
    Check(
        id="host-sources",
        about="the configured sources can be read",
        unless="one cannot",
        remedy="run it as the user that drains; check the path with `drainer inspect`",
        look=_sources,
    ),
)
