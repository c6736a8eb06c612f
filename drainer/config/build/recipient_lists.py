"""From ``[recipients]`` to the lists that it names."""

from drainer.config import Config
from drainer.sources.recipients.directory import RecipientDirectory
from drainer.sources.recipients.list_spec import DirectorySpec, ListSpec


def make_directory_spec(config: Config) -> DirectorySpec:
    """Return which lists there are."""
    section = config.recipients
    specs = (
        ListSpec(url=each) if isinstance(each, str) else each.values_for(ListSpec)
        for each in section.lists
    )
    return section.values_for(
        DirectorySpec,
        lists=tuple(specs),
        delimiters=config.bounce.tag_delimiters,
    )


def census_before_drain(config: Config) -> DirectorySpec | None:
    """Return the lists that a drain goes by; None if all recipients may exist."""
    section = config.recipients
    if section.before_drain and (section.lists or section.callout):
        return make_directory_spec(config)
    return None


def open_directory(spec: DirectorySpec) -> RecipientDirectory:
    """Return the lists, read. It may block.

    Raises UsageError if one cannot be read.
    """
    directory = RecipientDirectory(spec)
    directory.open()
    return directory
