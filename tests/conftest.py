"""Fixtures: real servers, scripted peers. And the rule that CI skips nothing."""

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.command import runner, worker_server
from tests.support.databases import servers
from tests.support.mta import postfix, roles
from tests.support.mta.postfix import PrivatePostfix, instance_directory
from tests.support.mta.roles import Primary
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Script

os.environ["COLUMNS"] = "250"  # no line of a table is broken, however long a path is
# How long an example takes is about the machine, and tests share theirs.
settings.register_profile(
    "drainer",
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("drainer")
gc.set_threshold(*runner.GARBAGE)
worker_server.install()
_skipped: list[str] = []

# ---- a skipped test is a failed run where everything is installed


def _must_run_everything() -> bool:
    return os.geteuid() == 0 or bool(os.environ.get("CI"))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what was skipped; an expected failure is not."""
    if report.skipped and not hasattr(report, "wasxfail"):
        _skipped.append(f"{report.nodeid}: {report.longreprtext}")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Remember modules that were skipped as a whole."""
    if report.skipped:
        _skipped.append(f"{report.nodeid}: {report.longreprtext}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when something was skipped by root or in CI."""
    if _skipped and _must_run_everything() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why the run failed."""
    if _skipped and _must_run_everything():
        terminalreporter.section("skipped, which fails the run as root and in CI")
        for line in _skipped:
            terminalreporter.write_line(line)


# ---- scripted peers


@pytest.fixture
def peer() -> Iterator[Callable[..., PeerThread]]:
    """Give a function that starts a peer: ``peer(rcpt="450 4.2.1 busy")``.

    The peer has a thread of its own. The function takes the fields of a Script, or a
    ``script``, and ``host`` or ``port``. When the test is over its peers are stopped,
    and must have seen no violation unless started ``lenient``.
    """
    strict: list[PeerThread] = []
    with contextlib.ExitStack() as stack:

        def start(
            script: Script | None = None,
            *,
            host: str = "127.0.0.1",
            port: int = 0,
            lenient: bool = False,
            **fields: Any,
        ) -> PeerThread:
            thread = PeerThread(script or Script(**fields), host=host, port=port)
            stack.enter_context(thread)
            if not lenient:
                strict.append(thread)
            return thread

        yield start
    assert [violation for thread in strict for violation in thread.violations] == []


# ---- Postfix


@pytest.fixture(scope="module")
def postfix_instances() -> Iterator[contextlib.ExitStack]:
    """Keep the instances that a module starts and end them after its last test."""
    reason = postfix.missing_reason()
    if reason:
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def backup_postfix(
    postfix_instances: contextlib.ExitStack,
) -> Callable[..., PrivatePostfix]:
    """Give a function that starts a backup MX with the options of ``roles.backup``.

    Each call starts another; a module whose tests share one calls it in a fixture of
    its own.
    """

    def start(**options: Any) -> PrivatePostfix:
        base = postfix_instances.enter_context(instance_directory())
        return postfix_instances.enter_context(roles.backup(base, **options))

    return start


@pytest.fixture(scope="module")
def primary_postfix(postfix_instances: contextlib.ExitStack) -> Callable[..., Primary]:
    """Give a function that starts a primary with the options of ``roles.primary``."""

    def start(**options: Any) -> Primary:
        base = postfix_instances.enter_context(instance_directory())
        return postfix_instances.enter_context(roles.primary(base, **options))

    return start


@pytest.fixture
def smtp_sink() -> Iterator[Callable[..., roles.SmtpSink]]:
    """Give a function that starts smtp-sink with its own command line options."""
    reason = roles.SmtpSink.missing_reason()
    if reason:
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        yield lambda *options: stack.enter_context(roles.SmtpSink(*options))


# ---- databases


@pytest.fixture(scope="session")
def database_servers() -> Iterator[Callable[[str], servers.Server]]:
    """Give a function that starts PostgreSQL or MariaDB, each once in a session."""
    with contextlib.ExitStack() as stack:
        running: dict[str, servers.Server] = {}

        def start(kind: str) -> servers.Server:
            reason = servers.missing_reason(kind)
            if reason:
                pytest.skip(reason)
            if kind not in running:
                running[kind] = stack.enter_context(servers.serving(kind))
            return running[kind]

        yield start


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def database_url(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    database_servers: Callable[[str], servers.Server],
) -> str:
    """Give the URL of an empty database of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/data.db"
    return database_servers(request.param).fresh()
