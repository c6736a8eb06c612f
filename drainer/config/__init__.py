"""drainer.toml and the environment -> one frozen Config, built once.

The only package that reads the configuration file and the environment. You can give
every key as DRAINER_SECTION__KEY; flags of a command override both. Unknown keys, bad
units and contradictions are errors that name file, line and key.
"""

import functools
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from drainer.config.bounce import BounceSection
from drainer.config.health import HealthSection
from drainer.config.hook import HookSection
from drainer.config.notify import NotifySection
from drainer.config.primary import PrimarySection
from drainer.config.recipients import RecipientsSection
from drainer.config.route_section import RouteSection, route_configs
from drainer.config.scan import ScannerName, ScannerSection
from drainer.config.section import Section
from drainer.config.telemetry import OtelSource, TelemetrySection
from drainer.config.throttle import BreakerSection, RetrySection, ThrottleSection
from drainer.config.watch import WatchSection


class LedgerSection(Section):
    """Where drainer keeps its ledger."""

    url: str = Field("", description="Path or database URL. Empty = the default place.")


class SourceSection(BaseModel):
    """A named source: its URL, and options of its format."""

    model_config = ConfigDict(extra="allow", frozen=True)

    url: str = Field(description="Source URL, as on the command line.")


class Config(BaseSettings):
    """The whole configuration in force."""

    model_config = SettingsConfigDict(
        env_prefix="DRAINER_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )
    file: ClassVar[Path | None] = None
    #: The content of the file, which is read once.
    values: ClassVar[Mapping[str, Any]] = {}

    primary: PrimarySection = PrimarySection()
    health: HealthSection = HealthSection()
    throttle: ThrottleSection = ThrottleSection()
    retry: RetrySection = RetrySection()
    breaker: BreakerSection = BreakerSection()
    bounce: BounceSection = BounceSection()
    recipients: RecipientsSection = RecipientsSection()
    watch: WatchSection = WatchSection()
    ledger: LedgerSection = LedgerSection()
    telemetry: TelemetrySection = TelemetrySection()
    notify: NotifySection = NotifySection()
    hook: HookSection = HookSection()
    routes: tuple[RouteSection, ...] = ()
    scan: dict[ScannerName, ScannerSection] = Field(default_factory=dict)
    sources: dict[str, SourceSection] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _routes_fit(self) -> "Config":
        route_configs(self)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: flags, our environment, OpenTelemetry's, the file."""
        del dotenv_settings, file_secret_settings
        from_file = InitSettingsSource(settings_cls, init_kwargs=dict(cls.values))
        return init_settings, env_settings, OtelSource(settings_cls), from_file


@functools.cache
def own_hostname() -> str:
    """Return this host's full name, for EHLO; without working DNS this takes long."""
    return socket.getfqdn()
