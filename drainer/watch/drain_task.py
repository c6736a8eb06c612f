"""One drain of a watch: an ordinary run, and what its end means for the watch."""

import asyncio

from msgspec.structs import replace

from drainer.config.build.spools import make_sources
from drainer.delivery.build import build_settings
from drainer.delivery.route_resolution import resolve_routes
from drainer.delivery.run import (
    DrainRequest,
    Run,
    open_run,
    start_workers,
)
from drainer.errors import DrainerError
from drainer.ledger.watch_log import WatchLog
from drainer.policy.breaker.breaker import CircuitBreaker
from drainer.policy.breaker.history import ROUTE
from drainer.policy.watch.machine import Observation
from drainer.policy.watch.states import WatchEvent
from drainer.runtime.workers import start
from drainer.watch.plan import WatchPlan


class DrainTask:
    """A drain that runs, or is about to run."""

    def __init__(self, plan: WatchPlan, watch_log: WatchLog) -> None:
        self._plan = plan
        self._watch_log = watch_log
        #: The run, once it has started.
        self.active_run: Run | None = None
        #: The watch has stopped it, so its end says nothing about the primary.
        self.stopped = False

    def stop(self) -> None:
        """Let it end soon: each session finishes its message."""
        if not self.stopped:
            self.stopped = True
            if self.active_run is not None:
                self.active_run.stop()

    async def run(self) -> Observation:
        """Drain; return what the end means."""
        try:
            request = await asyncio.to_thread(self._request)
            # Not forked: there are threads, and databases are open.
            with start_workers(start, exports=False) as workers:
                async with open_run(request, workers) as run:
                    self.active_run = run
                    if self.stopped:
                        run.stop()
                    else:
                        await run.drain()
            return await self._meaning(run)
        except DrainerError as error:
            return _describe_failure(error)

    def _request(self) -> DrainRequest:
        plan = self._plan
        sources = make_sources(plan.config, list(plan.names), ())
        config, admission, mx = resolve_routes(plan.config, sources)
        drain_settings = replace(
            build_settings(
                config, admission=admission, explicit=False, acknowledge=True
            ),
            mx=mx,
            rescan=config.watch.rescan,
            grace=config.watch.grace,
        )
        return DrainRequest(
            config=config, settings=drain_settings, sources=sources, url=plan.url
        )

    async def _meaning(self, run: Run) -> Observation:
        if run.result.error is not None:
            return _describe_failure(run.result.error)
        drain = run.engine
        sent = drain.progress.sent_messages
        breakers = [breaker for _, breaker in drain.open_breakers]
        stopped = [each for each in breakers if each.scope == ROUTE]
        if breakers and (not sent or len(stopped) == len(drain.routes)):
            return _describe_refusal(breakers[0])
        due = await asyncio.to_thread(
            self._watch_log.next_due,
            self._plan.urls,
            list(drain.routes),
            braked=drain.is_braked,
        )
        if due is None:
            return Observation(
                event=WatchEvent.FINISHED,
                why=f"{sent} messages sent, nothing is left for a drain",
            )
        domains = ", ".join(each.scope or name for name, each in drain.open_breakers)
        rest = f"{domains} is refused" if domains else "the rest is due later"
        why = f"{sent} messages sent, {rest}"
        return Observation(
            event=WatchEvent.LEFT, why=why, until=due, delivered_any=sent > 0
        )


def _describe_refusal(breaker: CircuitBreaker) -> Observation:
    reply = (
        breaker.cause.reply if breaker.cause else "no message was accepted for too long"
    )
    where = f"mail for {breaker.scope} is refused: " if breaker.scope else ""
    why = f"{where}{reply}"
    return Observation(
        event=WatchEvent.REFUSED, why=why, until=breaker.until, delivered_any=False
    )


def _describe_failure(error: DrainerError) -> Observation:
    words = f"{error}: {error.hint}" if error.hint else str(error)
    return Observation(event=WatchEvent.FAILED, why=words, delivered_any=False)
