"""A span: its parts, and the attributes that several kinds of spans share.

Attributes have the type of their value. An empty one is left out.
"""

import re
import socket
import uuid
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from drainer import __version__
from drainer.ledger.columns import to_json
from drainer.mail.reply import Reply, as_said
from drainer.telemetry import names
from drainer.telemetry.ids import context, root_span, run_trace

MAX_STATUS = 300
"""Characters of the description of a status."""
_SCOPE = InstrumentationScope("drainer", __version__)
_UNSET = Status()
_STAGE = re.compile(r"^[a-z]{1,10}: ")
Row = Mapping[str, Any]


class SpanPlace(NamedTuple):
    """Where a span is; ``parent`` is 0 for a root."""

    trace: int
    span: int
    parent: int = 0


class SpanDetails(NamedTuple):
    """The parts of a span that most spans do not have."""

    kind: SpanKind = SpanKind.INTERNAL
    events: Sequence[Event] = ()
    links: Sequence[Link] = ()
    #: The value of error.type, and the words; none is no error.
    error: str = ""
    words: str = ""


_PLAIN = SpanDetails()


def make_resource(ledger: str, *, rehearsal: bool) -> Resource:
    """Return who exports; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go first.

    ``ledger`` is its identity, 32 hex digits.
    """
    ours: dict[str, Any] = {
        "service.name": "drainer",
        "service.version": __version__,
        "service.instance.id": str(uuid.UUID(ledger)),
        "host.name": socket.gethostname(),
    }
    if rehearsal:
        ours[names.REHEARSAL] = True
    given = Resource(ours).merge(OTELResourceDetector().detect())
    return Resource.create(given.attributes)


class SpanMaker:
    """Makes the spans of one resource."""

    def __init__(self, resource: Resource) -> None:
        """Put this resource into every span."""
        self._resource = resource

    def __call__(
        self,
        name: str,
        place: SpanPlace,
        times: tuple[int, int],
        attributes: dict[str, Any],
        details: SpanDetails = _PLAIN,
    ) -> ReadableSpan:
        """Return a span; ``times`` are microseconds since 1970."""
        status = _UNSET
        if details.error:
            attributes[names.ERROR_TYPE] = details.error
            status = Status(StatusCode.ERROR, details.words[:MAX_STATUS])
        trace, span, parent = place
        return ReadableSpan(
            name,
            context=context(trace, span),
            parent=context(trace, parent) if parent else None,
            resource=self._resource,
            attributes=attributes,
            events=details.events,
            links=details.links,
            kind=details.kind,
            status=status,
            start_time=times[0] * 1000,
            end_time=max(times) * 1000,
            instrumentation_scope=_SCOPE,
        )


def event(name: str, at: int, attributes: dict[str, Any]) -> Event:
    """Return a timed event; ``at`` in microseconds since 1970."""
    return Event(name, attributes=attributes, timestamp=at * 1000)


@lru_cache
def run_link(run: str) -> Link:
    """Return a link to the root span of a run."""
    trace = run_trace(run)
    return Link(context(trace, root_span(trace)))


@lru_cache(4096)
def codes_of(reply: str) -> Mapping[str, Any]:
    """Return the numeric code and the enhanced code of a reply; {} for no reply.

    The reply to a breaker has the stage in front.
    """
    said = as_said(_STAGE.sub("", reply))
    if not isinstance(said, Reply):
        return {}
    found: dict[str, Any] = {names.CODE: said.code}
    if said.enhanced:
        found[names.ENHANCED] = said.enhanced
    return found


@lru_cache(1024)
def server_of(address: str, host: str = "", protocol: str = "smtp") -> Row:
    """Return the attributes of a peer, by ``address:port`` and the name of its host."""
    peer, _, port = address.rpartition(":")
    peer = peer.strip("[]")
    if not peer or not port.isdigit():
        return {names.SERVER: host} if host else {}
    return {
        names.SERVER: host or peer,
        names.SERVER_PORT: int(port),
        names.PEER: peer,
        names.PEER_PORT: int(port),
        names.PROTOCOL: protocol,
    }


def filled(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes without the empty ones."""
    return {key: value for key, value in attributes.items() if value not in ("", None)}


def flattened(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return nested values as attributes: maps by dots, lists of one type as lists."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        match value:
            case None | "" | [] | {}:
                continue
            case Mapping():
                found |= flattened(value, f"{prefix}{key}.")
            case list() if not _is_uniform(value):
                found[f"{prefix}{key}"] = to_json(value)
            case _:
                found[f"{prefix}{key}"] = value
    return found


def _is_uniform(values: list[Any]) -> bool:
    kind = type(values[0])
    return kind in (str, int, float, bool) and all(type(v) is kind for v in values)
