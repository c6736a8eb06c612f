"""Open sources from names and URLs."""

from collections.abc import Iterable, Mapping, Sequence

from drainer.config import Config
from drainer.mail.envelope import domain_key
from drainer.sources.protocol import LiveSource, Source
from drainer.sources.registry import open_source


def make_sources(
    config: Config,
    names: list[str],
    queues: Sequence[str],
    *,
    listing: bool = False,
    postfix: Mapping[str, str] = {},
) -> list[Source]:
    """Open the sources: URLs, paths, or names of ``[sources.NAME]`` tables.

    ``queues`` names other queues than the usual ones, for formats that have them.
    ``listing`` also shows messages that a drain sends only when asked to. ``postfix``
    has options for queues of Postfix.
    """
    found: dict[str, Source] = {}
    for name in names:
        options: dict[str, object] = {}
        url = name
        if name in config.sources:
            section = config.sources[name]
            url, options = section.url, dict(section.model_extra or {})
        if url.startswith("postfix:") and not url.startswith("postfix:live"):
            options |= postfix
        source = open_source(url, options=options, listing=listing, queues=queues)
        found[source.url] = source
    return list(found.values())


def with_domains(config: Config, sources: Iterable[Source]) -> Config:
    """Take the domains from a running server if the configuration names none.

    Raises UsageError when the server cannot name them.
    """
    taking = [source for source in sources if isinstance(source, LiveSource)]
    if config.primary.domains or not taking:
        return config
    domains = dict.fromkeys(
        domain_key(domain) for source in taking for domain in source.domains()
    )
    primary = config.primary.model_copy(update={"domains": tuple(domains)})
    return config.model_copy(update={"primary": primary})
