"""The configuration as text: the file that `init` writes, and its reference."""

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from drainer.config import Config
from drainer.config.route_section import OWN_KEYS, SECTION_OF, RouteSection
from drainer.config.scan import ScannerSection

_HEAD = """\
# drainer.toml - every key with its default. Uncomment what you change.
# You can also set each key in the environment, as DRAINER_SECTION__KEY.
# `drainer config` prints the configuration in force.
"""
_ROUTES = """
# Another primary for some recipient domains: a table for each. Any key of [primary],
# [health], [throttle] and [breaker] that differs may be here. Its login, client
# certificate, CA, pinned keys and known-good recipients are its own.
#
# [[routes]]
# domains = ["example.net", ".example.net"]
# hosts = [["mx1.example.net", "mx2.example.net"], "mx3.example.net"]
# rate = "5/second"
"""
_SCAN = """
# A scanner that looks at each message before it is sent: a table for each.
#
# [scan.antivirus]
# protocol = "clamd"
# unreachable = "defer"
"""
_SOURCES = """
# [sources.backup]
# url = "postfix:/var/spool/postfix"
"""


def sections() -> Iterator[tuple[str, type[BaseModel]]]:
    """Yield every section of fixed keys with its model."""
    for name, field in Config.model_fields.items():
        model = field.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            yield name, model


def default_of(model: type[BaseModel], key: str) -> Any:  # noqa: ANN401
    """Return a key's default as JSON (and so TOML) writes it; None = no default."""
    return model.model_construct().model_dump(mode="json").get(key)


def type_of(field: FieldInfo, default: Any) -> str:  # noqa: ANN401
    """Return the type of a key in words for operators."""
    text = str(field.annotation)
    if "timedelta" in text:
        return "list of durations" if "tuple" in text else "duration"
    if "Literal" in text:
        words = text[text.index("[") + 1 : -1].replace("'", '"')
        return "one of " + words
    for sign, word in (
        ("ListSection", "list of strings and tables"),
        ("tuple", "list of strings"),
        ("bool", "boolean"),
        ("int", "integer"),
        ("float", "number"),
    ):
        if sign in text:
            return word
    return "string" if default is None or isinstance(default, str) else "value"


def render_toml() -> str:
    """Return a drainer.toml in which every key is commented out."""
    parts = [_HEAD]
    for name, model in sections():
        parts.append(f"\n# {(model.__doc__ or '').strip()}\n[{name}]\n")
        for key, field in model.model_fields.items():
            default = default_of(model, key)
            written = "..." if default is None else json.dumps(default)
            parts.append(f"# {field.description}\n# {key} = {written}\n")
    parts += [_ROUTES, _SCAN, _SOURCES]
    return "".join(parts)


def reference_markdown() -> str:
    """Return docs/configuration.md's tables."""
    tables = [_section_markdown(*each) for each in sections()]
    named = _section_markdown("scan.NAME", ScannerSection)
    return "".join([*tables, named, _routes_markdown()])


def _section_markdown(name: str, model: type[BaseModel]) -> str:
    parts = [f"\n## [{name}]\n\n{(model.__doc__ or '').strip()}\n\n"]
    parts.append("| key | type | default | meaning |\n|---|---|---|---|\n")
    for key, field in model.model_fields.items():
        default = default_of(model, key)
        shown = "none" if default is None else f"`{json.dumps(default)}`"
        kind = type_of(field, default).replace("|", "\\|")
        parts.append(f"| `{key}` | {kind} | {shown} | {field.description} |\n")
    return "".join(parts)


def _routes_markdown() -> str:
    key, domains = "domains", RouteSection.model_fields["domains"]
    inherited = {
        section: [k for k, name in SECTION_OF.items() if name == section]
        for section in dict.fromkeys(SECTION_OF.values())
    }
    rows = "".join(
        f"- of `[{section}]`: {', '.join(f'`{k}`' for k in keys)}\n"
        for section, keys in inherited.items()
    )
    return (
        f"\n## [[routes]]\n\n{(RouteSection.__doc__ or '').strip()}\n\n"
        "| key | type | default | meaning |\n|---|---|---|---|\n"
        f"| `{key}` | list of strings | none | {domains.description} |\n\n"
        f"Keys that a route may set:\n\n{rows}\n"
        f"Of the sections, a route has no {', '.join(f'`{key}`' for key in OWN_KEYS)}:"
        " it sets its own, because another server must not see a secret.\n"
    )
