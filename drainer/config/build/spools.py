"""From names and URLs to open sources."""

from collections.abc import Iterable, Sequence

from drainer.config import Config
from drainer.sources.protocol import LiveSource, Source
from drainer.sources.registry import open_source


def make_sources(
    config: Config, names: list[str], queues: Sequence[str], *, listing: bool = False
) -> list[Source]:
    """Open the sources: URLs, paths, or names of ``[sources.NAME]`` tables.

    ``queues`` are for those that can read others than usual; ``listing`` shows also
    what a drain leaves alone unless it is asked for.
    """
    found: dict[str, Source] = {}
    for name in names:
        options: dict[str, object] = {}
        url = name
        if name in config.sources:
            section = config.sources[name]
            url, options = section.url, dict(section.model_extra or {})
        source = open_source(url, options=options, listing=listing, queues=queues)
        found[source.url] = source
    return list(found.values())


def with_domains(config: Config, sources: Iterable[Source]) -> Config:
    """Let a server that runs name the primary's domains when nobody else has.

    Raises UsageError when it cannot.
    """
    taking = [source for source in sources if isinstance(source, LiveSource)]
    if config.primary.domains or not taking:
        return config
    domains = dict.fromkeys(domain for source in taking for domain in source.domains())
    primary = config.primary.model_copy(update={"domains": tuple(domains)})
    return config.model_copy(update={"primary": primary})
