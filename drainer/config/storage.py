"""Where things are: the ledger, the sources, the traces."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from drainer.config.section import Section


class LedgerSection(Section):
    """Where drainer remembers."""

    url: str = Field("", description="a path or database URL; empty = the default")


class TelemetrySection(Section):
    """Traces."""

    traces: str = Field("off", description="off, console, otlp, or file:PATH")
    endpoint: str = Field(
        "http://127.0.0.1:4318/v1/traces", description="OTLP/HTTP endpoint"
    )
    addresses: Literal["plain", "hashed"] = Field(
        "hashed", description="mailboxes in traces"
    )

    @field_validator("traces")
    @classmethod
    def _known(cls, value: str) -> str:
        if value in ("off", "console", "otlp") or value.removeprefix("file:") != value:
            return value
        message = "legal: off, console, otlp, file:PATH"
        raise ValueError(message)


class SourceSection(BaseModel):
    """A named source: its URL, and options of its format."""

    model_config = ConfigDict(extra="allow", frozen=True)

    url: str = Field(description="as on the command line")
