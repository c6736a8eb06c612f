"""Sections and the values that they become: the same names, the same defaults."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel

import drainer
from drainer.bounce.decider import BounceDecider
from drainer.bounce.evidence.request import DnsServers, EvidenceSettings
from drainer.bounce.reports import DsnSettings
from drainer.config.bounce import BounceSection
from drainer.config.health import HealthSection
from drainer.config.primary import PrimarySection
from drainer.config.recipients import ListSection, RecipientsSection
from drainer.config.render import sections
from drainer.config.scan import ScannerSection
from drainer.config.section import Section
from drainer.config.telemetry import TelemetrySection
from drainer.config.throttle import BreakerSection, RetrySection, ThrottleSection
from drainer.delivery.content_scan.protocol import ScannerSettings
from drainer.delivery.pacing.load import LoadSource
from drainer.delivery.settings import PacingSettings, RouteSettings
from drainer.ledger.reports.outbox import ReportDelays
from drainer.policy.admission.admit import ContentLimits
from drainer.policy.admission.content_scan import HoldRule
from drainer.policy.bounce.limits import ReportLimits
from drainer.policy.breaker.brake import Brake
from drainer.policy.breaker.detector import DetectorThresholds
from drainer.policy.recipient.retry import RetrySchedule
from drainer.policy.watch.machine import WatchSettings
from drainer.smtp.dane import DaneSettings
from drainer.smtp.route import Route, Timeouts
from drainer.smtp.tls import TlsFiles
from drainer.sources.recipients.list_spec import DirectorySpec, ListSpec
from drainer.telemetry import ExportOrder
from tests.support.rows import every_row

VALUES: tuple[tuple[type[Section], type[Any], str, str], ...] = (
    (PrimarySection, ContentLimits, "{}", ""),
    (PrimarySection, Timeouts, "{}_timeout", "ehlo quit"),
    (PrimarySection, TlsFiles, "tls_{}", "key_password"),
    (
        PrimarySection,
        Route,
        "{}",
        (
            "host port tiers address helo tls tls_files dane login timeouts"
            " ignore_extensions"
        ),
    ),
    (HealthSection, WatchSettings, "{}", "doublings"),
    (ThrottleSection, PacingSettings, "{}", "full load"),
    (ThrottleSection, LoadSource, "load_{}", "command"),
    (RetrySection, RetrySchedule, "{}", "confirm_after soonest"),
    (BreakerSection, DetectorThresholds, "{}", "slow"),
    (BreakerSection, Brake, "brake_{}", ""),
    (
        BreakerSection,
        RouteSettings,
        "{}",
        "route probe connections rates pace brake thresholds rules",
    ),
    (BounceSection, ReportLimits, "{}", ""),
    (BounceSection, ReportDelays, "{}", ""),
    (BounceSection, BounceDecider, "{}", "trust hostname limits"),
    (BounceSection, DsnSettings, "{}", "via hostname waits rate signing"),
    (BounceSection, EvidenceSettings, "{}", "servers hostname private"),
    (BounceSection, DnsServers, "dns_{}", "addresses budget"),
    (BounceSection, DaneSettings, "dns_{}", "required addresses"),
    (TelemetrySection, ExportOrder, "{}", "ledger locks rehearsal"),
    (RecipientsSection, DirectorySpec, "{}", "lists delimiters"),
    (ListSection, ListSpec, "{}", ""),
    (ScannerSection, HoldRule, "{}", "hold"),
    (
        ScannerSection,
        ScannerSettings,
        "{}",
        "name address max_bytes rule defers pauses",
    ),
)
"""A section, a value of it, the keys of its fields, and fields of other origin."""

_SOURCES = "".join(
    path.read_text("utf-8") for path in Path(drainer.__path__[0]).rglob("*.py")
)
_ATTRIBUTES = set(re.findall(r"\.(\w+)", _SOURCES))


@every_row(VALUES)
def test_a_field_has_the_name_of_its_key_or_is_listed(
    section: type[Section], kind: type[Any], form: str, others: str
) -> None:
    """A field without its key would have the same value in every configuration."""
    fields = inspect.signature(kind).parameters
    listed = others.split()
    missing = [
        name
        for name in fields
        if name not in listed and form.format(name) not in section.model_fields
    ]
    assert not missing, "no key of the section has this name"
    assert set(listed) <= set(fields), "the value has no such field"


@every_row(VALUES)
def test_a_value_has_the_defaults_of_its_section(
    section: type[Section], kind: type[Any], form: str, others: str
) -> None:
    """The documented default also applies where no configuration is read."""
    required = [k for k, field in section.model_fields.items() if field.is_required()]
    usual = section.model_construct(**dict.fromkeys(required))
    prefix, _, suffix = form.partition("{}")
    listed = dict.fromkeys(others.split())
    value = usual.values_for(kind, prefix=prefix, suffix=suffix, **listed)
    for name, field in inspect.signature(kind).parameters.items():
        if name not in listed and field.default is not field.empty:
            assert getattr(value, name) == field.default, name


def test_every_value_of_a_section_is_checked_here() -> None:
    """Without a row, no test would find a field whose key is misspelt."""
    used = set(re.findall(r"\.values_for\(\s*(\w+)", _SOURCES))
    assert used == {kind.__name__ for _, kind, _, _ in VALUES}


def _keys() -> Iterator[tuple[type[BaseModel], str]]:
    for _, section in sections():
        for key in section.model_fields:
            yield section, key


@every_row(_keys())
def test_a_key_has_an_effect(section: type[BaseModel], key: str) -> None:
    """It is a field of a value, or code reads it."""
    values = {
        form.format(name)
        for each, kind, form, others in VALUES
        if each is section
        for name in inspect.signature(kind).parameters
        if name not in others.split()
    }
    assert key in values | _ATTRIBUTES
