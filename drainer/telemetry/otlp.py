"""Traces to a collector: OTLP over HTTP, by the SDK's exporter.

The SDK reaches the collector, and repeats. Why an export failed, and what of it a
collector rejected, only the session notes; it also brings the encoded request. A
request that is too large, or that the collector cannot read, is halved. One span that
is too large loses its long texts. So no span keeps those behind it from being exported.
"""

import gzip
import os
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import requests
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.trace.export import SpanExportResult

from drainer.mail.reply import printable
from drainer.runtime.redaction import redact_url
from drainer.telemetry import names
from drainer.telemetry.projector import Exporter, ExportFailure
from drainer.telemetry.protobuf_encoder import ProtobufEncoder, encode
from drainer.telemetry.spans import Attributes, TraceSpan

MAX_BYTES = 3 * 1024 * 1024
"""Of one request, before compression; a collector takes 4 MiB by default."""
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
        #: A request that is encoded already; b"" to send the SDK's.
        self.body = b""
        self._signal = signal
        #: By ourselves: the SDK's gzip is the slowest there is.
        self._compression = (
            read_setting(signal, "COMPRESSION").strip().lower() or "gzip"
        )
        self._latest = 0.0
        self.forget()

    def forget(self) -> None:
        """Forget the last answer."""
        self.status, self.content, self.error = 0, b"", ""

    def request(self, *arguments: Any, **options: Any) -> requests.Response:  # noqa: ANN401 - the SDK's
        """Send a request, not too soon after the one before."""
        options["data"] = self.body or options["data"]
        if self.verify is not True:  # else REQUESTS_CA_BUNDLE outranks what is set
            options["verify"] = self.verify
        if compress := _COMPRESSED.get(self._compression):
            options["data"] = compress(options["data"], LEVEL)
            encoding = {"Content-Encoding": self._compression}
            options["headers"] = {**options["headers"], **encoding}
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
        """Whether the last request could succeed in smaller parts."""
        return self.status in _TOO_LARGE or self._code() == _RESOURCE_EXHAUSTED

    def failure(self) -> str:
        """Return why the last request failed, and what to do."""
        if not self.status:
            return self.error or "no answer"
        words = _REMEDIES.get(self.status, "").format(self._signal.lower())
        said = printable(self._message(), MAX_WORDS)
        return ": ".join(filter(None, (f"HTTP {self.status}", said, words)))

    def _parse(self) -> Status:
        try:
            return Status.FromString(self.content)
        except DecodeError:
            return Status()

    def _code(self) -> int:
        return self._parse().code if self.status >= 400 else 0  # noqa: PLR2004

    def _message(self) -> str:
        known = self._parse().message
        return known or self.content[:MAX_WORDS].decode("utf-8", "replace").strip()


_COMPRESSED: Final[Mapping[str, Callable[[bytes, int], bytes]]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}
"""By OTEL_EXPORTER_OTLP_COMPRESSION; for any other value nothing is compressed."""
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


class OtlpExporter(Exporter[TraceSpan]):
    """Sends spans to a collector."""

    def __init__(
        self, endpoint: str, resource: Attributes, report: Callable[[str], None]
    ) -> None:
        """Connect to nothing yet; ``report`` gets what an operator must know."""
        self._session = CollectorSession(TRACES, INTERVAL)
        self._encoder = ProtobufEncoder(resource)
        #: Bytes of a request that belong to no span, and for the lengths of its parts.
        self._overhead = len(self._encoder.request(())) + 8
        self._endpoint = redact_url(endpoint)
        self._report = report
        self._sdk = OTLPSpanExporter(
            endpoint=endpoint,
            session=self._session,
            timeout=None if read_setting(TRACES, "TIMEOUT") else TIMEOUT,
            compression=Compression.NoCompression,
        )
        self._has_sent = False
        self._rejected = 0

    def hurry(self) -> None:
        """Send the rest without a pause between requests: the drain is over."""
        self._session.interval = 0.0

    def export(self, records: Iterable[TraceSpan]) -> None:
        """Send spans in requests of a limited size; ExportFailure says why not."""
        spans, encoded = [], []
        for span in records:
            spans.append(span)
            encoded.append(encode(span))
        waiting = _parts(list(map(len, encoded)), MAX_BYTES - self._overhead)[::-1]
        while waiting:
            these = waiting.pop()
            if self._is_sent([encoded[n] for n in these]):
                continue
            if len(these) == 1:
                self._send_short(spans[these[0]])
            else:
                half = len(these) // 2
                waiting += [these[half:], these[:half]]

    def _send_short(self, span: TraceSpan) -> None:
        """Send a span without its texts; else skip it, if others were taken."""
        if self._is_sent([encode(shorten(span))]):
            self._report(f"a span `{span.name}` was too large: it lost its long texts")
        elif self._has_sent:
            self._reject(1, self._session.failure())
        else:  # maybe it takes nothing at all
            raise self._failure()

    def _is_sent(self, spans: Sequence[bytes]) -> bool:
        """Send one request; return False if a smaller one may succeed."""
        self._session.forget()
        self._session.body = self._encoder.request(spans)
        if len(self._session.body) > MAX_BYTES:  # a single span
            return False
        # Of no spans, for the session has the request.
        if self._sdk.export(()) is SpanExportResult.SUCCESS:
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


def read_setting(signal: str, name: str) -> str:
    """Return what the environment sets for a signal, or for all of them; or ''."""
    names = (f"{signal}_{name}", name)
    values = (os.environ.get(f"OTEL_EXPORTER_OTLP_{each}", "") for each in names)
    return next(filter(None, values), "")


def _parts(sizes: Sequence[int], most: int) -> list[range]:
    """Divide spans into ranges that have at most so many bytes, or are one span."""
    parts, first, total = [], 0, 0
    for n, size in enumerate(sizes):
        if total + size > most and n > first:
            parts.append(range(first, n))
            first, total = n, 0
        total += size
    return [*parts, range(first, len(sizes))] if sizes else []


def shorten(span: TraceSpan) -> TraceSpan:
    """Return a span without its long texts and most of its events; it says so."""
    events = [
        each._replace(attributes=_short(each.attributes))
        for each in span.events[:SHORT_LIST]
    ]
    missing = f"texts, {len(span.events) - len(events)} events"
    return msgspec.structs.replace(
        span,
        attributes=_short(span.attributes) | {names.TRUNCATED: missing},
        events=events,
        links=span.links[:SHORT_LIST],
    )


def _short(attributes: Attributes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in attributes.items():
        if isinstance(value, str):
            found[key] = value[:SHORT_TEXT]
        elif isinstance(value, tuple):
            found[key] = value[:SHORT_LIST]
        else:
            found[key] = value
    return found
