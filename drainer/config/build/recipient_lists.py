"""From ``[recipients]`` to the lists that it names."""

from drainer.config import Config
from drainer.sources.recipients.directory import RecipientDirectory
from drainer.sources.recipients.list_kinds import ListSpec, open_list


def make_directory(config: Config) -> RecipientDirectory | None:
    """Read the lists of recipients; None without any and without callout.

    It may block. Raises UsageError if one cannot be read.
    """
    section = config.recipients
    if not section.lists and not section.callout:
        return None
    delimiters = config.bounce.tag_delimiters
    lists = [open_list(ListSpec(url=url), delimiters) for url in section.lists]
    return RecipientDirectory(lists, section.max_age)
