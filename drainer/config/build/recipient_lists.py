"""From ``[recipients]`` to the lists that it names."""

from drainer.config import Config
from drainer.sources.recipients.directory import RecipientDirectory
from drainer.sources.recipients.list_kinds import open_list
from drainer.sources.recipients.list_spec import ListSpec


def make_directory(config: Config) -> RecipientDirectory | None:
    """Read the lists of recipients; None without any and without callout.

    It may block. Raises UsageError if one cannot be read.
    """
    section = config.recipients
    if not section.lists and not section.callout:
        return None
    delimiters = config.bounce.tag_delimiters
    specs = [
        ListSpec(url=each) if isinstance(each, str) else each.values_for(ListSpec)
        for each in section.lists
    ]
    lists = [open_list(spec, delimiters) for spec in specs]
    return RecipientDirectory(lists, section.max_age)
