"""SPF behind our DNS seam, against a real DNS server: the RFC 7208 suite, the traps."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from drainer.evidence import spf
from drainer.evidence.dns import Dns
from drainer.policy.facts import parse_address
from tests.zones import TIMEOUT, Zone, serving

SUITE: Final = Path(__file__).parents[1] / "data" / "spf" / "rfc7208-tests.yml"


def cases() -> Iterator[Any]:
    """Yield every case of the suite with the zone of its scenario."""
    for scenario in yaml.safe_load_all(SUITE.read_text("utf-8")):
        for name, case in scenario["tests"].items():
            yield pytest.param(scenario["zonedata"], case, id=name)


def suite_zone(data: Mapping[str, Any]) -> Zone:
    """Return the zone as the suite means it: TXT is made of SPF where it is absent."""
    zone = Zone(silent="error.")
    for name, entries in data.items():
        zone.records.setdefault(name.lower(), [])
        pairs = [
            pair
            for each in entries
            for pair in (each.items() if isinstance(each, dict) else [(TIMEOUT, "")])
        ]
        has_txt = any(kind == "TXT" for kind, _ in pairs)
        for kind, value in pairs:
            _add(zone, name, kind, value)
            if kind == "SPF" and not has_txt:
                _add(zone, name, "TXT", value)
    return zone


def _add(zone: Zone, name: str, kind: str, value: Any) -> None:
    if value == "NONE":
        return
    if value == TIMEOUT:
        zone.add(name, f"{kind}-{TIMEOUT}")
    elif isinstance(value, list):
        if kind == "MX":
            zone.add(name, kind, f"{value[0]} {value[1] or '.'}")
        else:
            zone.add(name, kind, "".join(value).encode())
    else:
        zone.add(name, kind, value)


def test_the_whole_suite_is_there() -> None:
    """None was lost by a change of the file."""
    assert len(list(cases())) == 203


@pytest.mark.parametrize(("zonedata", "case"), list(cases()))
def test_rfc_7208_suite(zonedata: Mapping[str, Any], case: Mapping[str, Any]) -> None:
    """Every case ends as the suite says, asked of a real DNS server."""
    sender = case["mailfrom"] or f"postmaster@{case['helo']}"
    local, at, domain = sender.partition("@")
    local, domain = (local, domain) if at else ("", sender)
    address = parse_address(case["host"])
    assert address is not None
    with serving(suite_zone(zonedata), timeout=0.5) as servers:
        dns = Dns(servers)
        found = spf.check(dns, address, local=local, domain=domain, helo=case["helo"])
    wanted = case["result"]
    assert found.result in ([wanted] if isinstance(wanted, str) else wanted), found
