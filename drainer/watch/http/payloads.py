"""What the bodies of health hooks mean.

Many monitors send both the bad and the good news to one URL. Each of our two URLs takes
the news that it is for. Alerts are about trouble: firing is down, resolved is up. A
body without news of its own, such as ``{}``, means what its URL says.
"""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from drainer.mail.reply import printable
from drainer.policy.pacing.overrides import OverrideKind
from drainer.runtime.json_input import parse_json

MAX_WORDS = 300

Body = Mapping[str, Any]

_ALERTS: Final = {"firing": OverrideKind.DOWN, "resolved": OverrideKind.UP}
_HEARTBEATS: Final = {0: OverrideKind.DOWN, 1: OverrideKind.UP, 2: None, 3: None}
"""Uptime Kuma: down, up, pending, maintenance."""


class BodyError(ValueError):
    """A body does not parse; the text says why."""


class HookRequest(Struct, frozen=True, kw_only=True):
    """What one body asks for; ``ask`` is None if it is to be ignored."""

    ask: OverrideKind | None
    #: The program that sends such bodies, and its text: escaped, and cut.
    sender: str
    words: str


def read_body(body: bytes, url: OverrideKind) -> HookRequest:
    """Return what a body means at the URL for UP or DOWN; BodyError if it is not valid.

    It accepts an empty body, and JSON objects of Alertmanager (version 4), Grafana and
    Uptime Kuma. Any other object means what its URL says, with its ``reason``.
    """
    payload = _object(body)
    if "heartbeat" in payload:
        state, sender, words = _uptime_kuma(payload)
    elif isinstance(payload.get("alerts"), list):
        state, sender, words = _alerts(payload)
    else:
        state, sender, words = url, "hook", _text(payload.get("reason"))
    return HookRequest(ask=state if state is url else None, sender=sender, words=words)


def is_alert(body: bytes) -> bool:
    """Return whether a body itself says which news it is, whatever its URL."""
    try:
        payload = _object(body)
    except BodyError:
        return False
    return "heartbeat" in payload or isinstance(payload.get("alerts"), list)


def _object(body: bytes) -> Body:
    if not body.strip():
        return {}
    try:
        payload = parse_json(body)
    except ValueError:
        raise BodyError("the body is not JSON") from None
    if not isinstance(payload, dict):
        raise BodyError("the body is not a JSON object")
    return payload


def _uptime_kuma(payload: Body) -> tuple[OverrideKind | None, str, str]:
    """Parse a notification; the heartbeat of a test is null."""
    words = _text(payload.get("msg"))
    beat = payload["heartbeat"]
    if beat is None:
        return None, "uptime-kuma", words or "a test"
    status = beat.get("status") if isinstance(beat, dict) else None
    if type(status) is not int or status not in _HEARTBEATS:
        raise BodyError("heartbeat.status must be 0, 1, 2 or 3")
    return _HEARTBEATS[status], "uptime-kuma", words


def _alerts(payload: Body) -> tuple[OverrideKind | None, str, str]:
    """Parse a group of alerts; one alert that fires makes the group fire."""
    sender = "grafana" if "orgId" in payload else "alertmanager"
    status = payload.get("status")
    if not isinstance(status, str) or status not in _ALERTS:
        raise BodyError("status is neither firing nor resolved")
    alerts = [alert for alert in payload["alerts"] if isinstance(alert, dict)]
    labels = [_below(alert, "labels") for alert in alerts]
    if any(_is_test(label) for label in labels):
        return None, sender, "a test"
    alike = [alert for alert in alerts if alert.get("status") == status]
    words = _summary(alike[0] if alike else {}) or _text(payload.get("title"))
    return _ALERTS[status], sender, f"{status}: {words}" if words else status


def _is_test(labels: Body) -> bool:
    """Return whether an operator pressed Grafana's button for a test."""
    name, instance = labels.get("alertname"), labels.get("instance")
    return name == "TestAlert" and instance == "Grafana"


def _summary(alert: Body) -> str:
    annotations = _below(alert, "annotations")
    words = annotations.get("summary") or annotations.get("description")
    return _text(words or _below(alert, "labels").get("alertname"))


def _below(payload: Body, key: str) -> Body:
    found = payload.get(key)
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str:
    return printable(value.strip(), MAX_WORDS) if isinstance(value, str) else ""
