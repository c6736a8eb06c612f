"""Where things are: the ledger, the sources, the traces."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from drainer.config.section import Section


class LedgerSection(Section):
    """Where drainer keeps its ledger."""

    url: str = Field("", description="Path or database URL. Empty = the default place.")


class TelemetrySection(Section):
    """Traces: what drainer exports to OpenTelemetry."""

    traces: str = Field(
        "off", description="Where traces go: off, console, otlp, or file:PATH."
    )
    endpoint: str = Field(
        "http://127.0.0.1:4318/v1/traces",
        description="OTLP/HTTP endpoint, if traces = otlp.",
    )
    addresses: Literal["plain", "hashed"] = Field(
        "hashed",
        description="Mail addresses in traces: hashed with a local key, or plain.",
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

    url: str = Field(description="Source URL, as on the command line.")
