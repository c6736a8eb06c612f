"""Imports point down, decisions are pure, and every package has one home."""

import ast
import graphlib
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from tests.support.paths import ROOT
from tests.support.rows import every_row

PACKAGE: Final = ROOT / "drainer"

#: From the bottom up. Those on one line are peers and do not import one another, but
#: for ``errors`` and ``runtime``: an error hides secrets, and what runs raises errors.
LAYERS: Final = (
    ("errors", "runtime"),
    ("mail",),
    ("policy",),
    ("ledger", "smtp", "sources"),
    ("config",),
    ("bounce", "telemetry"),
    ("delivery", "doctor"),
    ("watch",),
    ("cli",),
    ("__main__",),
)
FOUNDATION: Final = frozenset(LAYERS[0])
RANK: Final = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

#: What decides is given the time, the chance and the facts; it never looks for them.
PURE: Final = ("drainer.mail", "drainer.policy")
IMPURE: Final = frozenset(
    (
        "asyncio", "io", "logging", "os", "pathlib", "random", "secrets", "select",
        "signal", "socket", "ssl", "subprocess", "tempfile", "threading", "time",
        "uuid",
    )
)  # fmt: skip

#: Each package that is not ours, and the modules (or packages) that may import it.
HOMES: Final[Mapping[str, tuple[str, ...]]] = {
    "aiolimiter": ("drainer.watch.http.limits", "drainer.smtp.rate_limiter"),
    "aiosmtplib": (
        "drainer.smtp.connection",
        "drainer.smtp.aiosmtplib_reply",
        "drainer.smtp.login",
    ),
    "authres": ("drainer.bounce.evidence.authres",),
    "cryptography": ("drainer.smtp.certificate",),
    "dkim": ("drainer.bounce.evidence.dkim", "drainer.bounce.evidence.dkim_sign"),
    "dns": (
        "drainer.bounce.evidence.dns",
        "drainer.bounce.evidence.shared_dns",
        "drainer.smtp.dane",
    ),
    "google": ("drainer.telemetry.otlp",),
    "idna": ("drainer.mail.mailbox",),
    "jinja2": ("drainer.cli.report_page",),
    "ldap": ("drainer.sources.recipients.ldap_list",),
    "msgspec": ("drainer",),
    "opentelemetry": ("drainer.telemetry",),
    "prometheus_client": ("drainer.watch.metrics",),
    "psycopg": ("drainer.runtime.databases",),
    "publicsuffixlist": ("drainer.runtime.public_suffixes",),
    "pydantic": (
        "drainer.config",
        "drainer.watch.http.build",
    ),
    "pydantic_settings": ("drainer.config",),
    "re2": ("drainer.policy.classify.rules",),
    "requests": ("drainer.telemetry.otlp",),
    "rich": ("drainer.cli",),
    "spf": ("drainer.bounce.evidence.spf",),
    "sqlalchemy": (
        "drainer.runtime.databases",
        "drainer.watch.http",
        "drainer.ledger",
        "drainer.telemetry",
        "drainer.sources",
        "drainer.config.build",
    ),
    "starlette": ("drainer.watch.http",),
    "tenacity": ("drainer.ledger", "drainer.sources", "drainer.watch"),
    "typer": ("drainer.cli",),
    "uvicorn": ("drainer.watch.http.timeouts", "drainer.watch.http.server"),
    "uvloop": ("drainer.cli.event_loop",),
    "zstandard": (
        "drainer.sources.archive.compression",
        "drainer.sources.archive.unpack",
        "drainer.sources.archive.unpack_streams",
    ),
}


def module_name(path: Path) -> str:
    """Return the dotted name of a file of ours."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES: Final = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def imports(path: Path) -> frozenset[str]:
    """Return what a file imports, wherever in it; submodules by their own name."""
    return frozenset(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            module = node.module or ""
            for alias in node.names:
                full = f"{module}.{alias.name}"
                yield full if full in MODULES else module


def ours(path: Path) -> set[str]:
    """Return the modules of ours that a file imports."""
    return {name for name in imports(path) if name.partition(".")[0] == "drainer"}


def top(module: str) -> str:
    """Return the part of the tree that a module belongs to; '' for the root."""
    return module.partition(".")[2].partition(".")[0]


def within(module: str, homes: tuple[str, ...]) -> bool:
    """Tell whether a module is one of these or lies in one of them."""
    return any(module == home or module.startswith(f"{home}.") for home in homes)


@every_row(MODULES)
def test_imports_point_down(module: str) -> None:
    """Of ours, a module imports its own package and the layers below it."""
    own = top(module)
    if not own:
        assert not ours(MODULES[module]), "the package itself imports nothing"
        return
    assert own in RANK, f"{own} has no layer yet: give it one in tests/test_layers.py"
    for other in ours(MODULES[module]):
        below = top(other)
        if below and below != own and not {below, own} <= FOUNDATION:
            assert RANK[below] < RANK[own], f"{module} imports {other}"


def test_no_import_leads_back() -> None:
    """The modules of one package have an order too."""
    graph = {module: ours(path) - {"drainer"} for module, path in MODULES.items()}
    graphlib.TopologicalSorter(graph).prepare()


@every_row(name for name in MODULES if within(name, PURE))
def test_what_decides_is_pure(module: str) -> None:
    """mail/ and policy/ neither do I/O nor ask for the time or for chance."""
    roots = {name.partition(".")[0] for name in imports(MODULES[module])}
    assert not roots & IMPURE
    source = MODULES[module].read_text("utf-8")
    assert ".now(" not in source
    assert ".today(" not in source


@every_row(HOMES)
def test_a_package_is_imported_at_its_home_only(package: str) -> None:
    """So that it can be exchanged, and its exceptions stop at one edge."""
    importers = {
        module
        for module, path in MODULES.items()
        if any(name.partition(".")[0] == package for name in imports(path))
    }
    assert importers, f"nothing imports {package}: drop it from pyproject.toml"
    assert [m for m in sorted(importers) if not within(m, HOMES[package])] == []


def test_every_other_import_is_the_standard_library() -> None:
    """A new dependency gets a home here and a reason in pyproject.toml."""
    known = {*HOMES, "drainer", *sys.stdlib_module_names}
    roots = {
        name.partition(".")[0] for path in MODULES.values() for name in imports(path)
    }
    assert sorted(roots - known) == []
