"""What receives traces: a strict OTLP/HTTP collector, and a reader of OTLP/JSON files.

The collector parses requests with the official protobufs, and notes every fault that a
real backend may reject a span for. It is scripted: an answer may depend on the request.
"""

import base64
import gzip
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What a test wants to know of a span; ids in hex, times in nanoseconds."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    times: tuple[int, int]
    attributes: Mapping[str, Any]
    events: list[tuple[str, Mapping[str, Any]]]
    #: Trace and span.
    links: list[tuple[str, str]]
    is_error: bool
    words: str
    resource: Mapping[str, Any]

    @property
    def place(self) -> tuple[str, str]:
        """Its trace and its id."""
        return self.trace_id, self.span_id


def spans_of_file(path: Path) -> list[Span]:
    """Read a file of OTLP/JSON lines with the official protobufs."""
    return [
        span
        for line in path.read_text("utf-8").splitlines()
        for span in spans_of(request_of_json(line))
    ]


def request_of_json(line: str) -> ExportTraceServiceRequest:
    """Parse OTLP/JSON: it has ids in hex, where protobuf's own JSON has base64."""
    value = json.loads(line)
    for resource in value["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for each in (span, *span.get("links", ())):
                    for key in ("traceId", "spanId", "parentSpanId"):
                        if key in each:
                            raw = bytes.fromhex(each[key])
                            each[key] = base64.b64encode(raw).decode()
    request = ExportTraceServiceRequest()
    json_format.ParseDict(value, request)
    return request


def spans_of(request: ExportTraceServiceRequest) -> Iterable[Span]:
    """Yield the spans of a request."""
    for resource in request.resource_spans:
        known = attributes_of(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    kind=span.kind,
                    times=(span.start_time_unix_nano, span.end_time_unix_nano),
                    attributes=attributes_of(span.attributes),
                    events=[(e.name, attributes_of(e.attributes)) for e in span.events],
                    links=[(e.trace_id.hex(), e.span_id.hex()) for e in span.links],
                    is_error=span.status.code == Status.STATUS_CODE_ERROR,
                    words=span.status.message,
                    resource=known,
                )


def attributes_of(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    """Return attributes as Python values."""
    return {pair.key: _plain(pair.value) for pair in pairs}


def _plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_plain(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None


def faults_of(request: ExportTraceServiceRequest) -> list[str]:
    """Return what in a request breaks the specification, or is a poor habit."""
    faults = []
    for resource in request.resource_spans:
        names = attributes_of(resource.resource.attributes)
        if not names.get("service.name"):
            faults.append("a resource without service.name")
        for scope in resource.scope_spans:
            if not scope.scope.name:
                faults.append("a scope without a name")
            for span in scope.spans:
                faults += [f"{span.name}: {fault}" for fault in _faults(span)]
    return faults


def _faults(span: ProtoSpan) -> Iterable[str]:
    is_error = span.status.code == Status.STATUS_CODE_ERROR
    rules = {
        "trace id": len(span.trace_id) == 16 and any(span.trace_id),
        "span id": len(span.span_id) == 8 and any(span.span_id),
        "parent id": len(span.parent_span_id) in (0, 8),
        "its own parent": span.parent_span_id != span.span_id,
        "name": bool(span.name) and "@" not in span.name,
        "kind": span.kind != ProtoSpan.SPAN_KIND_UNSPECIFIED,
        "times": 0 < span.start_time_unix_nano <= span.end_time_unix_nano,
        "words without an error": is_error or not span.status.message,
        "error.type": is_error == ("error.type" in attributes_of(span.attributes)),
        "links": all(
            len(link.trace_id) == 16 and len(link.span_id) == 8 for link in span.links
        ),
    }
    yield from (name for name, holds in rules.items() if not holds)
    for pairs in (span.attributes, *(event.attributes for event in span.events)):
        yield from _attribute_faults(list(pairs))


def _attribute_faults(pairs: list[KeyValue]) -> Iterable[str]:
    keys = [pair.key for pair in pairs]
    if len(set(keys)) != len(keys):
        yield "an attribute twice"
    for pair in pairs:
        value = _plain(pair.value)
        if not pair.key or value is None or value in ("", []):
            yield f"attribute {pair.key} is empty"
        elif _is_number(value) and pair.key not in TEXTS_OF_DIGITS:
            yield f"attribute {pair.key} is a number in a text: {value}"


def _is_number(value: Any) -> bool:
    return isinstance(value, str) and value.replace(".", "", 1).isdigit()


TEXTS_OF_DIGITS = frozenset(
    (
        "drainer.native_id", "tls.protocol.version", "error.type", "drainer.version",
        "drainer.sender", "drainer.recipient", "messaging.message.id",
    )
)  # fmt: skip
"""What may be digits and is a name, or a hash."""


class Answer(NamedTuple):
    """How the collector answers a request."""

    status: int = 200
    body: bytes = b""


class Received(NamedTuple):
    """One request."""

    path: str
    headers: Mapping[str, str]
    #: Bytes as they came, and after decompression.
    sizes: tuple[int, int]
    spans: list[Span]
    at: float


def accept(_: Received) -> Answer:
    """Take everything."""
    return Answer(body=ExportTraceServiceResponse().SerializeToString())


@dataclass
class Collector:
    """Takes OTLP/HTTP protobuf on a loopback port, in a thread of its own."""

    port: int
    answer: Callable[[Received], Answer] = accept
    tls: ssl.SSLContext | None = None
    spans: list[Span] = field(default_factory=list)
    requests: list[Received] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Take one request."""
        data = gzip.decompress(body) if headers.get("content-encoding") else body
        request = ExportTraceServiceRequest.FromString(data)
        self.faults += faults_of(request)
        if headers.get("content-type") != "application/x-protobuf":
            self.faults.append("content type")
        found = list(spans_of(request))
        sizes = len(body), len(data)
        received = Received(path, headers, sizes, found, time.monotonic())
        self.requests.append(received)
        answer = self.answer(received)
        if answer.status == 200:
            self.spans += found
        return answer

    def __enter__(self) -> Self:
        """Serve."""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {key.lower(): value for key, value in self.headers.items()}
                answer = collector.take(self.path, headers, body)
                self.send_response(answer.status)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        if self.tls:
            listener = self._server.socket
            self._server.socket = self.tls.wrap_socket(listener, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def endpoint(self) -> str:
        """The URL that takes traces."""
        return f"http://127.0.0.1:{self.port}/v1/traces"
