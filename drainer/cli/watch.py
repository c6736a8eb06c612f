"""`watch`: drain whenever there is mail and the primary is healthy, until stopped."""

import os
from collections.abc import Callable
from typing import Annotated

from drainer.cli.event_loop import run_loop
from drainer.cli.log import stamp_messages
from drainer.cli.options import (
    ConfigOption,
    LedgerOption,
    ToOption,
    load,
    source_argument,
)
from drainer.cli.output import say, warn
from drainer.delivery.run import main_error
from drainer.errors import DrainerError
from drainer.policy.breaker.remedies import NO_KNOWN_GOOD
from drainer.runtime import databases
from drainer.watch.http.build import make_server
from drainer.watch.plan import WatchPlan, make_plan
from drainer.watch.watch import Serve, Watch


def watch(
    sources: Annotated[
        list[str] | None,
        source_argument("As for `drain`. Default: every [sources.NAME] table."),
    ] = None,
    to: ToOption = "",
    path: ConfigOption = None,
    ledger: LedgerOption = "",
) -> None:
    """Stay up: wait until the primary is healthy, drain, and wait for more mail.

    `drainer hook up` or new mail starts a check. The watch sends nothing before the
    primary has passed checks for a while. SIGHUP reloads the configuration, SIGTERM
    ends the watch.

    Exit status: 0 ended by a signal; 1 a defect of drainer, or the ledger was lost;
    2 usage or configuration; 6 another watch of this primary runs with this ledger.

    Example: drainer watch --config /etc/drainer/drainer.toml
    """
    names = tuple(sources or ())
    place = path.absolute() if path else None

    def read() -> WatchPlan:
        return make_plan(load(place, to=to, ledger=ledger), names)

    plan = read()
    error: DrainerError | None = None
    try:
        run_loop(lambda: _watch(plan, read))
    except* DrainerError as group:
        error = main_error(group)
    if error is not None:
        raise error


async def _watch(plan: WatchPlan, read: Callable[[], WatchPlan]) -> None:
    if "JOURNAL_STREAM" not in os.environ:  # a journal notes the time itself
        stamp_messages()
    shown = databases.safe_url(plan.url)
    say(f"watching {plan.route} for {', '.join(plan.urls)}; ledger {shown}")
    if plan.config.file is not None:
        say(f"configuration: {plan.config.file.absolute()}")
    if not plan.config.health.accept:
        warn(NO_KNOWN_GOOD)

    def server() -> Serve | None:
        return make_server(plan.config, plan.url, str(plan.route))

    await Watch(plan, read, server).run()
