"""A span, in plain values, and parts that spans have in common.

It is not a span of the SDK: that one is filled while a program runs, and takes several
times as long to make and to encode. Two modules encode ours, json_encoder and
protobuf_encoder; the tests compare them with the official encoder.
"""

import re
import socket
import uuid
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from msgspec import Struct
from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from drainer import __version__
from drainer.ledger.columns import to_json
from drainer.mail.reply import Reply, as_said
from drainer.telemetry import names
from drainer.telemetry.ids import root_span, run_trace

SCOPE: Final = "drainer", __version__
"""Name and version of what makes the spans."""
INTERNAL, CLIENT = 1, 3
"""Kinds of a span, as OTLP numbers them."""
ERROR: Final = 2
"""The status of a span that has an error, likewise."""
KNOWN, REMOTE = 0x100, 0x200
"""Flags: it is known whether the parent, or the target of a link, is remote; it is."""
MAX_STATUS = 300
"""Characters of the description of a status."""
_STAGE = re.compile(r"^[a-z]{1,10}: ")
Row = Mapping[str, Any]
Attributes = Mapping[str, Any]
"""By name: texts, numbers, bools, or tuples of one type."""


class SharedAttributes(dict[str, Any]):
    """Attributes that many spans and events share; an encoder encodes them once.

    Never change one: others are compared with it by identity, as objects are.
    """

    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__


class SpanPlace(NamedTuple):
    """Where a span is; ``parent`` is 0 for a root."""

    trace: int
    span: int
    parent: int = 0


class SpanLink(NamedTuple):
    """A span elsewhere; ``is_remote`` if another program made it."""

    trace: int
    span: int
    is_remote: bool = False


class SpanEvent(NamedTuple):
    """Something at a moment of a span."""

    name: str
    #: Microseconds since 1970.
    at: int
    attributes: Attributes


class TraceSpan(Struct, frozen=True):
    """A span that has ended."""

    name: str
    place: SpanPlace
    #: Microseconds since 1970. The end counts as not before the start.
    times: tuple[int, int]
    attributes: Attributes
    kind: int = INTERNAL
    events: Sequence[SpanEvent] = ()
    links: Sequence[SpanLink] = ()
    #: What error.type is; '' without an error.
    error: str = ""
    #: The words of the error.
    words: str = ""
    #: More attributes.
    shared: Sequence[SharedAttributes] = ()

    def groups(self) -> Sequence[Attributes]:
        """Return all attributes, with error.type, in groups; none may be empty."""
        if self.error:
            return self.attributes, *self.shared, error_type(self.error)
        return self.attributes, *self.shared


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


@lru_cache
def error_type(error: str) -> SharedAttributes:
    """Return the attribute error.type."""
    return SharedAttributes({names.ERROR_TYPE: error})


@lru_cache
def run_link(run: str) -> SpanLink:
    """Return a link to the root span of a run."""
    trace = run_trace(run)
    return SpanLink(trace, root_span(trace))


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
def server_of(address: str, host: str = "", protocol: str = "") -> Row:
    """Return the attributes of a peer, by ``address:port`` and the name of its host.

    The address of a Unix socket has no port.
    """
    peer, _, port = address.rpartition(":")
    peer = peer.strip("[]")
    found: dict[str, Any] = {names.SERVER: host or peer, names.PROTOCOL: protocol}
    if peer and port.isdigit():
        found[names.SERVER_PORT] = found[names.PEER_PORT] = int(port)
        found[names.PEER] = peer
    return drop_empty(found) if found[names.SERVER] else {}


def drop_empty(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes without the empty ones."""
    return {key: value for key, value in attributes.items() if value not in ("", None)}


def flatten(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return nested values as attributes: maps by dots, lists of one type as such."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        match value:
            case None | "" | [] | {}:
                continue
            case Mapping():
                found |= flatten(value, f"{prefix}{key}.")
            case list() if not _is_uniform(value):
                found[f"{prefix}{key}"] = to_json(value)
            case list():
                found[f"{prefix}{key}"] = tuple(value)
            case _:
                found[f"{prefix}{key}"] = value
    return found


def _is_uniform(values: list[Any]) -> bool:
    kind = type(values[0])
    return kind in (str, int, float, bool) and all(type(v) is kind for v in values)
