"""Shared by commands that give an override to the drains of a route."""

import getpass
import os
from datetime import datetime

from msgspec import Struct

from drainer.cli.filters import options_as
from drainer.cli.options import ConfigOption, JsonOption, LedgerOption, ToOption, load
from drainer.config import Config
from drainer.config.build.paths import LedgerURL, ledger_url
from drainer.config.build.routes import make_route
from drainer.delivery.mx_hosts import routes_now
from drainer.errors import UsageError
from drainer.ledger.overrides import give
from drainer.policy.pacing.overrides import Override, OverrideKind
from drainer.runtime.process import utcnow
from drainer.runtime.units import parse_duration


class OverrideTarget(Struct, frozen=True, kw_only=True):
    """The addressees of an override: every drain with this ledger and these routes."""

    config: Config
    url: LedgerURL
    routes: tuple[str, ...]
    as_json: bool

    def give(
        self,
        ask: OverrideKind,
        reason: str,
        for_: str = "",
        per_second: float | None = None,
    ) -> Override:
        """Record an override of all routes that ends after ``for_``, and return it.

        Raises UsageError for a bad duration, LedgerError when it cannot be written.
        """
        now = utcnow()
        control = Override(
            at=now,
            ask=ask,
            per_second=per_second,
            until=_until(now, for_),
            reason=reason,
            by=_caller(),
        )
        given, *_ = [give(self.url, route, control) for route in self.routes]
        return given

    @property
    def route(self) -> str:
        """The first route: a watch listens to hooks for it."""
        return self.routes[0]

    @property
    def shown(self) -> str:
        """The names of the routes, for people."""
        return ", ".join(self.routes)


def _until(now: datetime, text: str) -> datetime | None:
    if not text:
        return None
    try:
        return now + parse_duration(text)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"--for: {error}") from None


def _whom(
    to: ToOption = "",
    path: ConfigOption = None,
    ledger: LedgerOption = "",
    *,
    json_: JsonOption = False,
) -> OverrideTarget:
    config = load(path, to=to, ledger=ledger)
    return OverrideTarget(
        config=config,
        url=ledger_url(config),
        routes=tuple(str(make_route(each)) for each in routes_now(config)),
        as_json=json_,
    )


to_whom = options_as("whom", _whom)
"""Gives a command the options that name the addressees, as ``whom``."""


def _caller() -> str:
    try:
        name = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # in a container, our user may have no name
        name = str(os.getuid())
    return f"cli {name}"
