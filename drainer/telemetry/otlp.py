"""Traces to a collector: OTLP over HTTP, by the SDK's exporter.

The SDK keeps to itself why an export failed, and what of it a collector rejected. So
the session that it is given notes each answer. A request that is too large, or that the
collector cannot read, is halved. One span that is too large is sent without its long
texts, and says so. So no span keeps those behind it from being exported.
"""

import gzip
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import requests
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from drainer.mail.reply import printable
from drainer.runtime.redaction import redact_url
from drainer.telemetry import names
from drainer.telemetry.projector import ExportFailure

MAX_BYTES = 3 * 1024 * 1024
"""Of one request, before compression; a collector takes 4 MiB by default."""
MAX_SPANS = 1000
"""Of one request: about half of MAX_BYTES."""
INTERVAL = 0.25
"""Seconds between two requests while a drain runs."""
TIMEOUT = 5.0
"""Seconds for a request, unless the environment says otherwise."""
LEVEL = 1
"""Of gzip: fast."""
MAX_WORDS = 200
"""Characters of a collector's answer."""
SHORT_TEXT, SHORT_LIST = 100, 20
"""What is left of the texts and events of a span that is too large."""
_RESOURCE_EXHAUSTED = 8
_TOO_LARGE = (400, 413)
TRACES, METRICS = "TRACES", "METRICS"
"""What is sent, as in the names of variables."""


class CollectorSession(requests.Session):
    """Notes how the last request ended."""

    def __init__(self, signal: str, interval: float) -> None:
        """Send TRACES or METRICS, at most once in an interval."""
        super().__init__()
        self.interval = interval
        self._signal = signal
        #: By ourselves: the SDK spends more time on it than on everything else.
        self.compresses = not is_set(signal, "COMPRESSION")
        self._latest = 0.0
        self.forget()

    def forget(self) -> None:
        """Forget the last answer."""
        self.status, self.content, self.error = 0, b"", ""

    def request(self, *arguments: Any, **options: Any) -> requests.Response:  # noqa: ANN401 - the SDK's
        """Send a request, not too soon after the one before."""
        if self.compresses:
            options["data"] = gzip.compress(options["data"], LEVEL)
            options["headers"] = {**options["headers"], "Content-Encoding": "gzip"}
        time.sleep(max(0.0, self._latest + self.interval - time.monotonic()))
        self._latest = time.monotonic()
        self.forget()
        try:
            response = super().request(*arguments, **options)
        except requests.RequestException as error:
            self.error = _cause(error)
            raise
        self.status, self.content = response.status_code, response.content or b""
        return response

    @property
    def is_too_large(self) -> bool:
        """Whether the last request could succeed in smaller parts.

        The SDK does not send one of more than MAX_BYTES.
        """
        if not self.status and not self.error:
            return True
        return self.status in _TOO_LARGE or self._code() == _RESOURCE_EXHAUSTED

    def failure(self) -> str:
        """Return why the last request failed, and what to do."""
        if not self.status:
            return self.error or "no answer"
        words = _REMEDIES.get(self.status, "").format(self._signal.lower())
        said = printable(self._message(), MAX_WORDS)
        return ": ".join(filter(None, (f"HTTP {self.status}", said, words)))

    def _parsed(self) -> Status:
        try:
            return Status.FromString(self.content)
        except DecodeError:
            return Status()

    def _code(self) -> int:
        return self._parsed().code if self.status >= 400 else 0  # noqa: PLR2004

    def _message(self) -> str:
        known = self._parsed().message
        return known or self.content[:MAX_WORDS].decode("utf-8", "replace").strip()


_REMEDIES = {
    401: "set the token with OTEL_EXPORTER_OTLP_HEADERS",
    403: "the token has no right to send {0}",
    404: "nothing takes {0} at this path; it usually is /v1/{0}",
    405: "nothing takes {0} at this path; it usually is /v1/{0}",
    415: "it does not take OTLP as protobuf over HTTP",
}


def _cause(error: Exception) -> str:
    """Return why there was no answer, in words that do not change at each try."""
    match error:
        case requests.exceptions.SSLError():
            words = (
                "TLS: its certificate is not valid; see OTEL_EXPORTER_OTLP_CERTIFICATE"
            )
        case requests.Timeout():
            words = "it does not answer in time"
        case requests.ConnectionError() if "refused" in str(error).lower():
            words = "connection refused"
        case requests.ConnectionError() if "resolve" in str(error).lower():
            words = "its name cannot be resolved"
        case requests.ConnectionError():
            words = "the connection was lost"
        case _:
            words = printable(str(error), MAX_WORDS)
    return words


class OtlpExporter:
    """Sends spans to a collector."""

    def __init__(self, endpoint: str, report: Callable[[str], None]) -> None:
        """Connect to nothing yet; ``report`` gets what an operator must know."""
        self._session = CollectorSession(TRACES, INTERVAL)
        self._endpoint = redact_url(endpoint)
        self._report = report
        self._sdk = OTLPSpanExporter(
            endpoint=endpoint,
            session=self._session,
            timeout=None if is_set(TRACES, "TIMEOUT") else TIMEOUT,
            max_request_size=MAX_BYTES,
        )
        self._has_sent = False
        self._rejected = 0

    def hurry(self) -> None:
        """Send the rest without a pause between requests: the drain is over."""
        self._session.interval = 0.0

    def export(self, records: Sequence[ReadableSpan]) -> None:
        """Send spans in requests of a limited size; ExportFailure says why not."""
        starts = range(0, len(records), MAX_SPANS)
        waiting = [records[start : start + MAX_SPANS] for start in reversed(starts)]
        while waiting:
            spans = waiting.pop()
            if self._is_sent(spans):
                continue
            if len(spans) == 1:
                self._send_short(spans[0])
            else:
                half = len(spans) // 2
                waiting += [spans[half:], spans[:half]]

    def _send_short(self, span: ReadableSpan) -> None:
        """Send a span without its texts; else skip it, if others were taken."""
        if self._is_sent([shortened(span)]):
            self._report(f"a span `{span.name}` was too large: it lost its long texts")
        elif self._has_sent:
            self._reject(1, self._session.failure())
        else:  # maybe it takes nothing at all
            raise self._failure()

    def _is_sent(self, spans: Sequence[ReadableSpan]) -> bool:
        """Send one request; return False if a smaller one may succeed."""
        self._session.forget()
        if self._sdk.export(spans) is SpanExportResult.SUCCESS:
            self._has_sent = True
            self._count_rejected()
            return True
        if self._session.is_too_large:
            return False
        raise self._failure()

    def _failure(self) -> ExportFailure:
        return ExportFailure(f"{self._endpoint}: {self._session.failure()}")

    def _count_rejected(self) -> None:
        """Count what a collector took no part of, though it answered with success."""
        try:
            answer = ExportTraceServiceResponse.FromString(self._session.content)
        except DecodeError:
            return  # JSON, or a page of a proxy
        if count := answer.partial_success.rejected_spans:
            self._reject(count, answer.partial_success.error_message)

    def _reject(self, count: int, why: str) -> None:
        if not self._rejected:
            words = printable(why, MAX_WORDS)
            self._report(f"the collector rejects {count} spans: {words}")
        self._rejected += count

    def close(self) -> None:
        """Close the connection; report what was rejected in all."""
        self._sdk.shutdown()  # type: ignore[no-untyped-call]
        if self._rejected > 1:
            self._report(f"the collector rejected {self._rejected} spans in all")


def is_set(signal: str, name: str) -> bool:
    """Whether the environment sets something for a signal, or for all of them."""
    names = (name, f"{signal}_{name}")
    return any(os.environ.get(f"OTEL_EXPORTER_OTLP_{each}") for each in names)


def shortened(span: ReadableSpan) -> ReadableSpan:
    """Return a span without its long texts and most of its events; it says so."""
    events = [
        Event(each.name, attributes=_short(each.attributes), timestamp=each.timestamp)
        for each in span.events[:SHORT_LIST]
    ]
    missing = f"texts, {len(span.events) - len(events)} events"
    return ReadableSpan(
        span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=_short(span.attributes) | {names.TRUNCATED: missing},
        events=events,
        links=span.links[:SHORT_LIST],
        kind=span.kind,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _short(attributes: Any) -> dict[str, Any]:  # noqa: ANN401 - the SDK's mapping
    found: dict[str, Any] = {}
    for key, value in (attributes or {}).items():
        if isinstance(value, str):
            found[key] = value[:SHORT_TEXT]
        elif isinstance(value, list | tuple):
            found[key] = list(value[:SHORT_LIST])
        else:
            found[key] = value
    return found
