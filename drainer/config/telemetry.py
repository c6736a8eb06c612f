"""[telemetry], and what OpenTelemetry's own environment variables say about it.

``OTEL_*`` work as in every program with an OpenTelemetry SDK. The file outranks none of
them; ``DRAINER_TELEMETRY__*`` outranks all but ``OTEL_SDK_DISABLED``. The SDK itself
reads those that are not here: headers, certificates, timeout, compression, resource.
"""

import os
import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from drainer.config.section import Section

TRACES_PATH, METRICS_PATH = "/v1/traces", "/v1/metrics"
"""Where OTLP over HTTP takes them, below the endpoint of a collector."""
METRICS_INTERVAL = 60.0
"""Seconds between two exports of metrics, as the specification has it."""
MAX_TRACESTATE = 512
"""Characters that a tracestate may have (W3C Trace Context 3.3.1.1)."""

_PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_EXPORTERS = {"otlp": "otlp", "console": "console", "none": "off"}
_DISABLED = "OTEL_SDK_DISABLED"
_EXPORTER, _METRICS_EXPORTER = "OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER"
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
_METRICS_ENDPOINT = "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
_METRICS_INTERVAL = "OTEL_METRIC_EXPORT_INTERVAL"
_PROTOCOLS = "OTEL_EXPORTER_OTLP_{}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"


class _ExactUrl(str):
    """The URL of OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, which is used unchanged."""

    __slots__ = ()


class TelemetrySection(Section):
    """Traces, metrics and logs: what drainer exports, and where."""

    traces: str = Field(
        "off", description="Where traces go: off, console, otlp, or file:PATH."
    )
    endpoint: str = Field(
        "http://127.0.0.1:4318/v1/traces",
        description="OTLP/HTTP endpoint, if traces = otlp; without a path drainer adds"
        " /v1/traces. Metrics go to /v1/metrics beside it.",
    )
    addresses: Literal["plain", "hashed"] = Field(
        "hashed",
        description="Mail addresses in traces, reports and messages: hashed with a"
        " local key, or plain.",
    )

    logs: Literal["off", "json", "logfmt", "human"] = Field(
        "off",
        description="A log line on standard error for each recipient of each attempt,"
        " in this format.",
    )
    metrics: Literal["off", "otlp"] = Field(
        "off",
        description="Whether a collector gets the metrics of the ledger every minute"
        " while a drain or a watch runs, and at its end.",
    )
    textfile: str = Field(
        "",
        description="File that the end of every drain writes metrics to, for the node"
        " exporter's textfile collector; its name ends in .prom. Empty = none.",
    )

    @property
    def exports(self) -> bool:
        """Whether an export process is needed."""
        return self.traces != "off" or self.logs != "off"

    @property
    def metrics_endpoint(self) -> str:
        """Where metrics go; OTEL_EXPORTER_OTLP_METRICS_ENDPOINT is used unchanged."""
        exact = os.environ.get(_METRICS_ENDPOINT)
        if exact or not self.endpoint.endswith(TRACES_PATH):
            return exact or self.endpoint
        return self.endpoint.removesuffix(TRACES_PATH) + METRICS_PATH

    @field_validator("metrics")
    @classmethod
    def _is_enabled(cls, value: str) -> str:
        return "off" if _is_disabled() else value

    @field_validator("textfile")
    @classmethod
    def _is_collected(cls, value: str) -> str:
        if not value or value.endswith(".prom"):
            return value
        raise ValueError("the node exporter reads only names that end in .prom")

    @field_validator("traces")
    @classmethod
    def _known(cls, value: str) -> str:
        if value in ("off", "console", "otlp") or value.removeprefix("file:") != value:
            return "off" if _is_disabled() else value
        raise ValueError("legal: off, console, otlp, file:PATH")

    @field_validator("endpoint", mode="before")
    @classmethod
    def _with_path(cls, value: object) -> object:
        if not isinstance(value, str) or isinstance(value, _ExactUrl):
            return value
        parts = urlsplit(value)
        if parts.path in ("", "/"):
            return parts._replace(path=TRACES_PATH).geturl()
        return value

    @field_validator("endpoint")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if value.lower().startswith(("http://", "https://")):
            return value
        raise ValueError("legal: http://HOST[:PORT][/PATH], https://HOST[:PORT][/PATH]")


class OtelSource(PydanticBaseSettingsSource):
    """What the environment of OpenTelemetry says, in keys of [telemetry]."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> Any:  # noqa: ANN401
        """Not used: ``__call__`` returns everything."""
        del field, field_name

    def __call__(self) -> dict[str, Any]:
        """Return the keys that are set."""
        found: dict[str, Any] = {}
        if base := os.environ.get(_ENDPOINT):
            found["endpoint"] = _ExactUrl(base.rstrip("/") + TRACES_PATH)
        if exact := os.environ.get(_TRACES_ENDPOINT):
            found["endpoint"] = _ExactUrl(exact)
        if exporter := os.environ.get(_EXPORTER):
            found["traces"] = _EXPORTERS.get(exporter, exporter)
        if exporter := os.environ.get(_METRICS_EXPORTER):
            # Others, such as prometheus, are for programs that cannot do what is asked.
            found["metrics"] = "otlp" if exporter == "otlp" else "off"
        return {"telemetry": found} if found else {}


def origin_of(key: str) -> str:
    """Return the variable of OpenTelemetry that sets a key of [telemetry], or ''."""
    names = {
        "endpoint": (_TRACES_ENDPOINT, _ENDPOINT),
        "traces": (_EXPORTER,),
        "metrics": (_METRICS_EXPORTER,),
    }
    return next((name for name in names.get(key, ()) if os.environ.get(name)), "")


def unknown_protocol(signal: str) -> str:
    """Return the setting of a protocol that drainer does not speak; '' if none.

    ``signal`` is `TRACES` or `METRICS`.
    """
    for name in (each.format(signal) for each in _PROTOCOLS):
        if value := os.environ.get(name):
            return "" if value == "http/protobuf" else f"{name}={value}"
    return ""


def metrics_interval() -> float:
    """Return the seconds between two exports of metrics, a tenth at least."""
    value = os.environ.get(_METRICS_INTERVAL, "").strip()
    return max(0.1, int(value) / 1000) if value.isdecimal() else METRICS_INTERVAL


def caller() -> Mapping[str, str]:
    """Return the trace of the program that runs drainer, as W3C Trace Context.

    With ``traceparent``, and maybe ``tracestate``; {} if it named none.
    """
    parent = os.environ.get("TRACEPARENT", "").strip()
    if not _PARENT.fullmatch(parent):
        return {}
    state = os.environ.get("TRACESTATE", "").strip()
    is_kept = 0 < len(state) <= MAX_TRACESTATE and state.isprintable()
    return {"traceparent": parent} | ({"tracestate": state} if is_kept else {})


def _is_disabled() -> bool:
    return os.environ.get(_DISABLED, "").strip().lower() == "true"
