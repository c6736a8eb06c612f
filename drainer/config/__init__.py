"""drainer.toml and the environment -> one frozen Config, built once.

The only package that sees the configuration file or the environment. Every key
may be given as DRAINER_SECTION__KEY; flags of a command win over both. Unknown
keys, bad units and contradictions are errors that name file, line and key.
"""

import functools
import socket
from pathlib import Path
from typing import ClassVar

from pydantic import Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from drainer.config.bounce import BounceSection
from drainer.config.hook import HookSection
from drainer.config.pace import GateSection, RetrySection, ThrottleSection
from drainer.config.places import LedgerSection, SourceSection, TelemetrySection
from drainer.config.primary import HealthSection, Primary
from drainer.config.watch import WatchSection


class Config(BaseSettings):
    """Everything that is in force."""

    model_config = SettingsConfigDict(
        env_prefix="DRAINER_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )
    file: ClassVar[Path | None] = None

    primary: Primary = Primary()
    health: HealthSection = HealthSection()
    throttle: ThrottleSection = ThrottleSection()
    retry: RetrySection = RetrySection()
    gate: GateSection = GateSection()
    bounce: BounceSection = BounceSection()
    watch: WatchSection = WatchSection()
    ledger: LedgerSection = LedgerSection()
    telemetry: TelemetrySection = TelemetrySection()
    hook: HookSection = HookSection()
    sources: dict[str, SourceSection] = Field(default_factory=dict)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let flags win over the environment, and that over the file."""
        del dotenv_settings, file_secret_settings
        toml = TomlConfigSettingsSource(settings_cls, toml_file=cls.file)
        return init_settings, env_settings, toml


@functools.cache
def own_hostname() -> str:
    """Return this host's full name, for EHLO; where DNS is dead, asking takes long."""
    return socket.getfqdn()
