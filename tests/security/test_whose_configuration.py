"""A configuration that a stranger wrote, or can change, is never used.

It names commands that drainer runs, as root too. A stranger puts ``drainer.toml`` into
a folder in which root may start drainer, or exchanges one that root reads.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from drainer.config.trust import read_trusted
from drainer.errors import UsageError
from tests.security.foreign import (
    ATTACKER,
    OTHER,
    as_root,
    as_user,
    folder_of,
    link,
    open_place,
)
from tests.support.command.runner import Bench, call
from tests.support.smtp_peer.peer import PeerThread

pytestmark = as_root

RULES: Final = '[[rule]]\nname = "x"\ntext = "y"\nverdict = "bounce"\n'


@pytest.fixture
def place() -> Iterator[Path]:
    """Give a folder of root that all can enter, with a configuration of root."""
    with open_place() as made:
        write(made / "drainer.toml")
        yield made


def write(path: Path, owner: int = 0, mode: int = 0o644) -> Path:
    """Write a configuration that runs a command, as its owner."""
    path.parent.mkdir(exist_ok=True)
    ran = path.parent / "ran"
    path.write_text(f'[throttle]\nload_command = "touch {ran}"\n', "utf-8")
    os.chown(path, owner, owner)
    path.chmod(mode)
    return path


# ---- what is refused: each makes a file below a folder, and returns it


def of_a_stranger(place: Path) -> Path:
    """Written by another user, private as it may be."""
    return write(place / "stranger.toml", ATTACKER, 0o600)


def writable_for_all(place: Path) -> Path:
    """Root's, and anybody may write it."""
    return write(place / "open.toml", mode=0o666)


def writable_for_a_group(place: Path) -> Path:
    """Root's, and a group may write it: ssh refuses that too."""
    return write(place / "group.toml", mode=0o664)


def in_a_strangers_folder(place: Path) -> Path:
    """Root's, where its folder's owner may exchange it."""
    folder_of(place / "home")
    return write(place / "home" / "drainer.toml")


def in_a_strangers_sticky_folder(place: Path) -> Path:
    """Give its owner the folder; the sticky bit does not bind it."""
    folder_of(place / "home").chmod(0o1777)
    return write(place / "home" / "drainer.toml")


def in_an_open_folder(place: Path) -> Path:
    """Root's, where anybody may exchange it."""
    (place / "shared").mkdir()
    (place / "shared").chmod(0o777)
    return write(place / "shared" / "drainer.toml")


def in_a_groups_folder(place: Path) -> Path:
    """Root's, where a group may exchange it."""
    (place / "shared").mkdir()
    (place / "shared").chmod(0o775)
    return write(place / "shared" / "drainer.toml")


def below_a_strangers_folder(place: Path) -> Path:
    """Root's, in root's folder, which the owner of the one above may exchange."""
    folder_of(place / "home")
    return write(place / "home" / "etc" / "drainer.toml")


def below_an_open_folder(place: Path) -> Path:
    """Root's, in root's folder, which anybody may exchange."""
    (place / "shared").mkdir()
    (place / "shared").chmod(0o777)
    return write(place / "shared" / "etc" / "drainer.toml")


def a_hard_link(place: Path) -> Path:
    """Root's own file, to which a stranger gave a name in a folder for all."""
    (place / "sticky").mkdir()
    (place / "sticky").chmod(0o1777)
    path = place / "sticky" / "drainer.toml"
    path.hardlink_to(place / "drainer.toml")
    return path


def behind_a_strangers_link(place: Path) -> Path:
    """Root's own file, which a stranger has chosen."""
    (place / "sticky").mkdir()
    (place / "sticky").chmod(0o1777)
    return link(place / "sticky" / "drainer.toml", place / "drainer.toml")


def behind_roots_link_to_a_stranger(place: Path) -> Path:
    """Root's link leads to a stranger's file."""
    return link(place / "link.toml", of_a_stranger(place), 0)


def behind_a_chain(place: Path) -> Path:
    """Root's link leads to a link in a folder of a stranger."""
    folder_of(place / "home")
    middle = link(place / "home" / "middle", place / "drainer.toml", 0)
    return link(place / "link.toml", middle, 0)


REFUSED: Final = (
    of_a_stranger,
    writable_for_all,
    writable_for_a_group,
    in_a_strangers_folder,
    in_a_strangers_sticky_folder,
    in_an_open_folder,
    in_a_groups_folder,
    below_a_strangers_folder,
    below_an_open_folder,
    a_hard_link,
    behind_a_strangers_link,
    behind_roots_link_to_a_stranger,
    behind_a_chain,
)


@pytest.mark.parametrize("make", REFUSED)
def test_a_file_that_others_could_change_is_refused(
    place: Path, make: Callable[[Path], Path]
) -> None:
    """Exit 2 with the reason and the command that repairs it; nothing is run."""
    path = make(place)
    result = call("config", "--config", path)
    assert result.code == 2, result
    assert "is not used: " in result.stderr
    remedies = ("chown 0 ", "chmod go-w ", "move it ")
    assert any(remedy in result.stderr for remedy in remedies)
    assert result.stdout == ""


@pytest.mark.parametrize("command", ["drain", "watch", "check", "config"])
def test_a_strangers_file_in_the_current_folder_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Not passed over: the operator must know; its command never runs."""
    (place / "shared").mkdir()
    (place / "shared").chmod(0o1777)
    write(place / "shared" / "drainer.toml", ATTACKER)
    monkeypatch.chdir(place / "shared")
    source = [] if command in ("check", "config") else [f"maildir:{place}/m"]
    to = [] if command == "config" else ["--to", "127.0.0.1:9"]
    result = call(command, *source, *to)
    assert result.code == 2, result
    assert f"belongs to user {ATTACKER}" in result.stderr
    assert not (place / "shared" / "ran").exists()


# ---- what is used


def in_a_sticky_folder(place: Path) -> Path:
    """Root's file in /tmp: others can put nothing in its place."""
    (place / "sticky").mkdir()
    (place / "sticky").chmod(0o1777)
    return write(place / "sticky" / "drainer.toml")


def behind_roots_links(place: Path) -> Path:
    """As Kubernetes mounts it."""
    link(place / "..data", Path("version"), 0)
    write(place / "version" / "drainer.toml")
    return link(place / "k8s.toml", Path("..data/drainer.toml"), 0)


def readable_for_a_group(place: Path) -> Path:
    """As docs/deploy.md installs it."""
    return write(place / "group.toml", mode=0o640)


@pytest.mark.parametrize(
    "make", [in_a_sticky_folder, behind_roots_links, readable_for_a_group]
)
def test_roots_own_file_is_used(place: Path, make: Callable[[Path], Path]) -> None:
    """Where only root can change it."""
    result = call("config", "--config", make(place), "--json")
    assert result.code == 0, result
    assert "touch" in result.json["throttle"]["load_command"]


def test_any_user_may_use_its_own_file_and_roots(place: Path) -> None:
    """And no other user's, not even one that is private."""
    own, roots = write(folder_of(place / "a") / "c", ATTACKER), place / "drainer.toml"
    others = write(folder_of(place / "b", OTHER) / "c", OTHER)

    def look() -> str:
        assert b"touch" in read_trusted(own)
        assert b"touch" in read_trusted(roots)
        try:
            read_trusted(others)
        except UsageError as error:
            return str(error)
        return "used"

    assert f"belongs to user {OTHER}" in as_user(look)


def test_rules_are_read_with_the_same_care(place: Path) -> None:
    """They decide what a refusal means: a stranger's could bounce everything."""
    rules = place / "rules.toml"
    rules.write_text(RULES, "utf-8")
    os.chown(rules, ATTACKER, ATTACKER)
    config = place / "with-rules.toml"
    config.write_text(f'[primary]\nrules = "{rules}"\n', "utf-8")
    result = call("classify", "--config", config, "550 5.1.1 no")
    assert result.code == 2, result
    assert f"{rules} is not used" in result.stderr


def test_a_command_that_acts_names_its_file(
    place: Path, peer: Callable[..., PeerThread]
) -> None:
    """On stderr, before anything else; what scripts read stays as it was."""
    bench = Bench(place)
    bench.port = peer().port
    bench.add("a@example.org")
    result = bench.drain()
    assert result.code == 0, result
    assert result.stderr.startswith(f"configuration: {place}/drainer.toml\n")
    assert result.json["exit"] == 0
    assert "configuration: " not in bench.run("status", "--json").stderr


def test_a_configuration_that_a_user_may_not_read_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As /etc/drainer of the package: exit 2, in words, and not another setting."""
    closed = place / "closed"
    write(closed / "drainer.toml")
    closed.chmod(0o700)
    monkeypatch.setattr("drainer.config.load.PLACES", (closed / "drainer.toml",))

    for args in (("config",), ("config", "--config", closed / "drainer.toml")):

        def look(args: tuple[str | Path, ...] = args) -> str:
            done = call(*args)
            return f"{done.code} {done.stderr}"

        said = as_user(look)
        assert said.startswith("2 ")
        assert "Permission denied" in said
        assert "--config" in said
