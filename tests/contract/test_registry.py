"""Which source a URL means, and which options it takes."""

from pathlib import Path

import pytest

from drainer.errors import SourceError, UsageError
from drainer.sources.registry import open_source


@pytest.fixture
def spools(tmp_path: Path) -> Path:
    """Give a folder with an empty spool of every kind."""
    (tmp_path / "queue" / "deferred").mkdir(parents=True)
    for folder in ("new", "cur", ".Sub/new"):
        (tmp_path / "mail" / folder).mkdir(parents=True)
    (tmp_path / "exim" / "input").mkdir(parents=True)
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "1.EML").touch()
    for folder in ("new", "active"):
        (tmp_path / "both" / folder).mkdir(parents=True)
    return tmp_path


def test_a_url_names_the_format_and_is_made_canonical(spools: Path) -> None:
    """Links and dots in the path do not make another source."""
    (spools / "link").symlink_to("queue")
    for path in ("queue", "queue/", "link", "mail/../queue"):
        assert open_source(f"postfix:{spools}/{path}", options={}).url == (
            f"postfix:{spools.resolve()}/queue"
        )


def test_a_relative_path_starts_from_the_base(spools: Path) -> None:
    """A configuration file's paths are meant from where it lies."""
    source = open_source("maildir:mail", options={}, base=spools)
    assert source.url == f"maildir:{spools.resolve()}/mail"


def test_a_plain_path_is_looked_at(spools: Path) -> None:
    """What is there tells the format; what could be either has to be named."""
    assert open_source(str(spools / "queue"), options={}).url.startswith("postfix:")
    assert open_source("mail", options={}, base=spools).url.startswith("maildir:")
    assert open_source("exim", options={}, base=spools).url.startswith("exim:")
    assert open_source("export", options={}, base=spools).url.startswith("eml:")
    for path in ("both", "absent", "."):
        with pytest.raises(SourceError) as caught:
            open_source(path, options={}, base=spools)
        assert "postfix:" in caught.value.hint or "KIND:PATH" in caught.value.hint


def test_the_folder_above_is_named_for_a_single_queue(spools: Path) -> None:
    """Somebody who gives deferred/ itself is told what to give."""
    with pytest.raises(SourceError) as caught:
        open_source(f"postfix:{spools}/queue/deferred", options={})
    assert f"postfix:{spools.resolve()}/queue" in caught.value.hint


@pytest.mark.parametrize("url", ["exim4:/var", "postfix:", "ftp://x/y", ":x"])
def test_an_unknown_format_is_a_usage_error(url: str) -> None:
    """The known ones are listed."""
    with pytest.raises(UsageError) as caught:
        open_source(url, options={})
    assert "postfix" in caught.value.hint


def test_a_live_postfix_has_a_name_instead_of_a_path(tmp_path: Path) -> None:
    """And its configuration directory behind it; a folder of that name has a slash."""
    with pytest.raises(SourceError) as caught:
        open_source("postfix:live=/nowhere/etc", options={})
    assert "postfix:live" in caught.value.hint
    with pytest.raises(UsageError, match="no path"):
        open_source("postfix:live=", options={})
    (tmp_path / "live" / "deferred").mkdir(parents=True)
    found = open_source("postfix:./live", options={}, base=tmp_path)
    assert found.url == f"postfix:{tmp_path}/live"


def test_options_come_from_the_url_or_the_configuration(spools: Path) -> None:
    """The URL wins; lists may be written with commas."""
    url = f"maildir:{spools}/mail?backup_host=mx2.example&folders=Sub"
    source = open_source(url, options={"ack": "keep", "folders": ["Absent"]})
    assert not source.acknowledges
    assert open_source(f"postfix:{spools}/queue?ack=remove", options={}).acknowledges
    open_source(f"postfix:{spools}/queue", options={"queues": "hold, deferred"})


@pytest.mark.parametrize(
    ("option", "value", "legal"),
    [
        ("backup", "x", "backup_host"),
        ("ack", "delete", "move"),
        ("ack", 3, "move"),
        ("folders", 3, "text"),
        ("folders", "a/b", "Sub"),
        ("folders", "Absent", "new"),
    ],
)
def test_a_bad_option_is_an_error_that_lists_the_legal_ones(
    spools: Path, option: str, value: object, legal: str
) -> None:
    """Names and values are checked before anything is read."""
    with pytest.raises(UsageError) as caught:
        open_source(f"maildir:{spools}/mail", options={option: value})
    assert legal in caught.value.hint
