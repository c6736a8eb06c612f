"""A live Postfix is drained: its mail is held first, and what is not sent goes back."""

import fcntl
import os
import pickle
import re
import signal
import subprocess
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from drainer.errors import UsageError
from drainer.mail.message import Message
from drainer.policy.admission.admit import Admission
from drainer.policy.admission.routes import single_route
from drainer.sources.postfix.live import PostfixLive
from drainer.sources.postfix.note import HoldEntry, HoldNote
from drainer.sources.protocol import LedgerStatus
from tests.support.command.installed import Drainer, Result, drain_arguments
from tests.support.mta import roles
from tests.support.mta.postfix import (
    PrivatePostfix,
    free_port,
    instance_directory,
    missing_reason,
    wait_until,
)
from tests.support.mta.queues import copies, names, relay_port, submit, users
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Delay, Script, View, per_recipient

OK = "250 2.0.0 ok"


class EmptyLedger:
    """A ledger that knows no message."""

    def statuses(self, _: Sequence[str]) -> dict[str, list[LedgerStatus]]:
        """Know none."""
        return {}

    def attempted(self, _: str) -> list[Message]:
        """Know none."""
        return []


NOTHING = EmptyLedger()
OURS = Admission(routes=single_route("", ["example.org"]))


@pytest.fixture
def backup() -> Iterator[PrivatePostfix]:
    """Give a running backup whose primary is down: nothing listens there."""
    reason = missing_reason()
    if reason:
        pytest.skip(reason)
    with (
        instance_directory() as base,
        roles.backup(base, relay_port=free_port()) as running,
    ):
        yield running


@pytest.fixture
def idle() -> Iterator[PrivatePostfix]:
    """Give a backup that does not run, and has no mail."""
    reason = missing_reason()
    if reason:
        pytest.skip(reason)
    with instance_directory() as base:
        yield roles.backup(base)


@pytest.fixture
def drainer(tmp_path: Path) -> Drainer:
    """Give the command with a ledger of its own."""
    return Drainer(tmp_path / "ledger.db")


def source(backup: PrivatePostfix) -> str:
    """Return the URL of a live Postfix."""
    return f"postfix:live={backup.config_dir}"


def drain(drainer: Drainer, backup: PrivatePostfix, port: int, *more: object) -> Result:
    """Drain the live queue without a health check."""
    return drainer.drain(source(backup), port, "--no-check", *more)


def snapshot(backup: PrivatePostfix) -> set[tuple[str, int, int]]:
    """Return names, modes and inodes of everything in the queues."""
    return {
        (str(path), path.stat().st_mode, path.stat().st_ino)
        for queue in ("incoming", "active", "deferred", "hold", "defer", "bounce")
        for path in (backup.queue_dir / queue).rglob("*")
    }


def notes(drainer: Drainer) -> str:
    """Return what drainer's notes say is on hold."""
    folder = Path(f"{drainer.ledger}.locks")
    return "".join(path.read_text() for path in folder.glob("taken-*"))


# ---- the whole way


def test_what_is_for_the_primary_is_drained_and_nothing_else_is_touched(
    backup: PrivatePostfix, drainer: Drainer, peer: Callable[..., PeerThread]
) -> None:
    """Held by the administrator stays held, outbound mail and bounces stay queued."""
    held = submit(backup, ["held@example.org"])
    backup.postsuper(["-h", held[0]])
    outbound = submit(backup, ["x@elsewhere.example"], ["y@elsewhere.example"])
    outbound += submit(backup, ["z@elsewhere.example"], sender="")
    submit(backup, *users(20))
    before = {row for row in snapshot(backup) if row[0].endswith(tuple(outbound))}
    primary = peer()
    result = drain(drainer, backup, primary.port)
    assert result.code == 0, result.stderr
    assert copies(primary) == Counter(path for [path] in users(20))
    assert names(backup, "hold") == set(held)
    assert names(backup, "deferred") == set(outbound)
    assert before <= snapshot(backup), "not even moved there and back"
    assert set(drainer.states().values()) == {"delivered"}
    assert drainer.status()["balanced"]
    assert notes(drainer) == ""
    assert "example.org" in result.stderr, "whose mail is sent is said"
    again = drain(drainer, backup, primary.port)
    assert again.code == 0, again.stderr
    assert len(primary.accepted) == 20


def test_inspect_and_plan_change_nothing(
    backup: PrivatePostfix, drainer: Drainer
) -> None:
    """They list the same queue, and what is on hold; no note is written."""
    ids = submit(backup, *users(2), ["x@elsewhere.example"])
    backup.postsuper(["-h", ids[0]])
    before = snapshot(backup)
    listed = drainer.run("inspect", source(backup), "--json").objects
    assert {each["native_id"] for each in listed} == set(ids)
    assert {each["source"] for each in listed} == {source(backup)}
    assert Counter(each["queue"] for each in listed) == {"deferred": 2, "hold": 1}
    drainer.environment["MAIL_CONFIG"] = str(backup.config_dir)  # as Postfix has it
    assert drainer.run("inspect", "postfix:live", "--json").objects == listed
    plan = drainer.run("plan", source(backup), "--json").objects[0]
    assert plan["messages"] == 2
    assert plan["held"] == {"not-for-this-primary": 1}
    assert snapshot(backup) == before
    assert not list(drainer.ledger.parent.glob("*"))


def test_a_rehearsal_holds_nothing(
    backup: PrivatePostfix, drainer: Drainer, peer: Callable[..., PeerThread]
) -> None:
    """It sends to a test server, and the queue stays as it was."""
    submit(backup, *users(3))
    before = snapshot(backup)
    primary = peer()
    drain(drainer, backup, primary.port, "--rehearse")
    assert len(primary.accepted) == 3
    assert snapshot(backup) == before
    assert "on hold" not in backup.log()


# ---- what goes back


def test_what_is_deferred_goes_back_without_those_who_have_it(
    backup: PrivatePostfix, drainer: Drainer, peer: Callable[..., PeerThread]
) -> None:
    """Delivered recipients are marked in the file, as Postfix itself does it."""
    groups = [["one@example.org", "later@example.org", "x@elsewhere.example"]]
    ids = submit(backup, *groups)
    primary = peer(rcpt=per_recipient({"later@example.org": "450 4.2.0 later"}))
    result = drain(drainer, backup, primary.port)
    assert result.code == 5, result.stderr
    assert drainer.states() == {
        "one@example.org": "delivered",
        "later@example.org": "deferred",
        "x@elsewhere.example": "held",
    }
    assert names(backup, "deferred") == set(ids)
    assert names(backup, "hold") == set()
    [path] = backup.queue_files()
    text = backup.postcat(["-e", str(path)]).decode()
    assert "\ndone_recipient: one@example.org" in text
    assert "\nrecipient: later@example.org" in text
    assert "\nrecipient: x@elsewhere.example" in text
    relay = peer(port=relay_port(backup))
    backup.flush()
    relay.wait(lambda: len(copies(relay)) == 2, timeout=30)
    assert copies(relay) == Counter(["later@example.org", "x@elsewhere.example"])
    backup.wait_queue(0, ("incoming", "active", "deferred", "hold"))
    again = drain(drainer, backup, primary.port)
    assert again.code == 5, again.stderr
    [later] = drainer.recipients("--recipient", "later@", "--reply", "no queue has")
    assert (later["state"], later["rule"]) == ("held", "local-vanished")


def test_what_was_refused_for_good_is_not_left_to_postfix_to_bounce(
    backup: PrivatePostfix, drainer: Drainer, peer: Callable[..., PeerThread]
) -> None:
    """It waits on hold, by name, until a person decides; then it goes back."""
    ids = submit(backup, ["gone@example.org"])
    primary = peer(rcpt="550 5.1.1 no such user")
    result = drain(drainer, backup, primary.port)
    assert result.code == 5, result.stderr
    assert drainer.states() == {"gone@example.org": "bounce-pending"}
    assert "1 stay on hold" in result.stderr
    assert names(backup, "hold") == set(ids)
    assert ids[0] in notes(drainer)
    kept = drainer.run("spool", "give-back", source(backup), "--json")
    assert kept.objects[0]["waiting"] == 1
    assert names(backup, "hold") == set(ids)
    given = drainer.run("spool", "give-back", source(backup), "--all", "--json")
    assert given.objects[0]["released"] == 1
    assert names(backup, "deferred") == set(ids)
    assert notes(drainer) == ""
    drainer.run("discard", "--state", "bounce-pending", "--reason", "spam")
    assert drain(drainer, backup, primary.port).code == 0
    assert not backup.queue_files(("deferred", "hold")), "decided, so it is removed"


def test_what_is_released_from_quarantine_is_sent_from_its_copy(
    backup: PrivatePostfix, drainer: Drainer, peer: Callable[..., PeerThread]
) -> None:
    """Drainer has removed the message from the queue, so Postfix cannot send it."""
    submit(backup, ["gone@example.org"])
    primary = peer(rcpt="550 5.1.1 no such user")
    assert drain(drainer, backup, primary.port).code == 5
    [row] = drainer.recipients()
    # The copy is made before the confirming attempt, or when an operator decides.
    assert drainer.run("bounces", "cancel", row["id"], "--reason", "x").code == 0
    assert drain(drainer, backup, primary.port).code == 0
    assert not backup.queue_files(("deferred", "hold"))
    released = drainer.run("quarantine", "release", row["id"], "--reason", "is back")
    assert released.code == 0, released.stderr
    primary.script = Script()
    result = drain(drainer, backup, primary.port)
    assert result.code == 0, result.stderr
    assert copies(primary) == Counter(["gone@example.org"])


def test_a_pending_report_is_left_to_postfix(
    backup: PrivatePostfix, drainer: Drainer, peer: Callable[..., PeerThread]
) -> None:
    """Removing the message would remove the report too: it goes back, all done."""
    ids = submit(backup, ["one@example.org"])
    log = backup.queue_dir / "bounce" / ids[0]
    log.write_text("<x@example.org>: refused\nrecipient=x@example.org\noffset=1\n"
                   "status=5.1.1\naction=failed\nreason=refused\n\n")  # fmt: skip
    log.chmod(0o600)
    os.chown(log, (backup.queue_dir / "bounce").stat().st_uid, -1)
    primary = peer()
    result = drain(drainer, backup, primary.port)
    assert result.code == 0, result.stderr
    assert names(backup, "deferred") | names(backup, "active") == set(ids)
    text = backup.postcat(["-eq", ids[0]]).decode()
    assert "\ndone_recipient: one@example.org" in text
    assert log.exists()


def test_mail_that_postfix_would_bounce_for_its_age_is_reported(
    backup: PrivatePostfix, drainer: Drainer, peer: Callable[..., PeerThread]
) -> None:
    """Before it is taken, and when it goes back."""
    submit(backup, *users(2))
    backup.set(maximal_queue_lifetime="0s")
    primary = peer(rcpt="450 4.2.0 later")
    result = drain(drainer, backup, primary.port)
    words = " ".join(result.stderr.split())
    aged = "2 of them have outlived maximal_queue_lifetime"
    assert f"{aged}: Postfix bounces what" in words
    assert f"{aged}: Postfix bounces them" in words


# ---- who else is there


def test_a_delivery_under_way_is_waited_for(
    backup: PrivatePostfix, drainer: Drainer, peer: Callable[..., PeerThread]
) -> None:
    """Agents mark their recipients after the move; those that wait get nothing."""
    submit(backup, *users(30))
    slow = peer(
        port=relay_port(backup),
        dot=Delay(3, OK),
    )
    backup.flush()
    slow.wait(lambda: len(slow.messages) >= 3, timeout=30)
    primary = peer()
    result = drain(drainer, backup, primary.port)
    assert result.code == 0, result.stderr
    assert copies(slow) + copies(primary) == Counter(path for [path] in users(30))
    assert len(primary.accepted) >= 10, "most had not been begun"
    backup.wait_queue(0, ("incoming", "active", "deferred", "hold"))


def test_what_the_administrator_releases_meanwhile_is_not_sent(
    backup: PrivatePostfix, drainer: Drainer, peer: Callable[..., PeerThread]
) -> None:
    """Before every final dot the message must still be on hold."""
    submit(backup, *users(4))
    released: list[bool] = []

    def data(_: View) -> str:
        if not released:
            released.append(True)
            backup.postsuper(["-H", "ALL"])
        return "354 go ahead"

    primary = peer(data=data, lenient=True)
    result = drain(drainer, backup, primary.port, "--connections", "1")
    assert result.code == 5, result.stderr
    assert primary.accepted == []
    assert len(names(backup, "deferred")) == 4
    assert notes(drainer) == ""


def test_a_drain_with_another_ledger_is_refused_while_one_works(
    backup: PrivatePostfix,
    drainer: Drainer,
    peer: Callable[..., PeerThread],
    tmp_path: Path,
) -> None:
    """Both would list the queue before either has put it on hold, and send it."""
    submit(backup, *users(6))
    other = Drainer(tmp_path / "other" / "ledger.db")
    other.ledger.parent.mkdir()
    primary = peer(dot=Delay(0.3, OK))
    arguments = drain_arguments(source(backup), primary.port, "--no-check")
    first = drainer.start(*arguments, "--connections", "1")
    primary.wait(lambda: len(primary.messages) >= 1, timeout=30)
    first.send_signal(signal.SIGSTOP)
    refused = other.run(*arguments)
    assert refused.code == 2
    assert "another ledger is draining" in refused.objects[-1]["error"]
    first.send_signal(signal.SIGCONT)
    _, stderr = first.communicate(timeout=60)
    assert first.returncode == 0, stderr
    assert copies(primary) == Counter(path for [path] in users(6))
    assert drain(other, backup, primary.port).code == 0, "Postfix has the rest back"


def test_a_second_drain_of_the_same_postfix_leaves_it_alone(
    backup: PrivatePostfix, drainer: Drainer, peer: Callable[..., PeerThread]
) -> None:
    """Exit status 6, and what the first one holds is not given back."""
    submit(backup, *users(6))
    primary = peer(dot=Delay(0.3, OK))
    arguments = drain_arguments(source(backup), primary.port, "--no-check")
    first = drainer.start(*arguments, "--connections", "1")
    primary.wait(lambda: len(primary.messages) >= 1, timeout=30)
    first.send_signal(signal.SIGSTOP)
    assert drainer.run(*arguments).code == 6
    assert names(backup, "deferred") == set()
    first.send_signal(signal.SIGCONT)
    _, stderr = first.communicate(timeout=60)
    assert first.returncode == 0, stderr
    assert copies(primary) == Counter(path for [path] in users(6))


def test_an_id_that_belongs_to_another_message_by_now_is_not_removed(
    backup: PrivatePostfix, tmp_path: Path
) -> None:
    """Time, sender and content are looked at again before postsuper -d."""
    submit(backup, *users(2))
    live = PostfixLive(backup.config_dir)
    assert sum(t.messages for t in live.take(tmp_path / "note", OURS)) == 2
    first, second = (spooled.message for spooled in live.scan())
    hold = backup.queue_dir / "hold"
    (hold / second.native_id).replace(hold / first.native_id)
    assert live.acknowledge([first]) == []
    assert names(backup, "hold") == {first.native_id}
    assert live.begin([second]) == set()
    returned = live.give_back(tmp_path / "note", NOTHING)
    assert returned.released == 0, "what lies there was not taken under that name"
    assert names(backup, "hold") == {first.native_id}


def test_an_id_that_is_reused_while_it_is_held_goes_back_at_once(
    backup: PrivatePostfix, tmp_path: Path
) -> None:
    """What was noted and what was held are compared before anything is sent."""
    [id_] = submit(backup, *users(1))
    live = PostfixLive(backup.config_dir)
    note = tmp_path / "note"
    list(live.take(note, Admission(routes=single_route("", ["nobody.example"]))))
    [place] = (entry.place for entry in live.entries())
    assert place.name == id_
    assert live._hold({place: "0" * 32}) == set()
    assert names(backup, "deferred") == {id_}
    live.give_back(note, NOTHING)
    assert note.read_text() == ""


# ---- killed


@pytest.mark.parametrize("by", ["a person", "a drain that fails its check"])
def test_killed_while_it_takes_nothing_stays_hidden(
    backup: PrivatePostfix, drainer: Drainer, peer: Callable[..., PeerThread], by: str
) -> None:
    """The note was there before the hold; whoever is next gives it back."""
    admins = submit(backup, ["held@example.org"])
    backup.postsuper(["-h", admins[0]])
    ids = submit(backup, *users(10))
    primary = peer()
    process = drainer.start(
        *drain_arguments(source(backup), primary.port, "--no-check", "--rate", "1/hour")
    )
    wait_until(lambda: len(names(backup, "hold")) > 1, timeout=30, what="the hold")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    hidden = names(backup, "hold") - set(admins)
    assert all(name in notes(drainer) for name in hidden)
    if by == "a person":
        given = drainer.run("spool", "give-back", source(backup), "--json")
        assert given.code == 0, given.stderr
    else:
        primary.script = Script(banner="554 5.3.2 not yet")
        assert drainer.drain(source(backup), primary.port).code == 3
    assert names(backup, "hold") == set(admins)
    sent = set(names(backup, "deferred"))
    assert len(sent) >= len(ids) - 1, "one may have been delivered before the kill"
    assert sent <= set(ids)


def test_killed_while_it_gives_back_nothing_stays_hidden(
    backup: PrivatePostfix, drainer: Drainer, peer: Callable[..., PeerThread]
) -> None:
    """What was released is not ours, what was not is in the note still."""
    admins = submit(backup, ["held@example.org"])
    backup.postsuper(["-h", admins[0]])
    ids = submit(backup, *users(6))
    primary = peer(rcpt="450 4.2.0 later")
    process = drainer.start(
        *drain_arguments(source(backup), primary.port, "--no-check")
    )
    released = "released from hold"
    wait_until(lambda: released in backup.log(), timeout=30, what=released)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    given = drainer.run("spool", "give-back", source(backup), "--json")
    assert given.code == 0, given.stderr
    assert names(backup, "hold") == set(admins)
    assert names(backup, "deferred") == set(ids)
    assert notes(drainer) == ""


@pytest.mark.parametrize("step", ["mail", "data", "dot"])
def test_killed_at_a_step_the_rerun_leaves_nothing_hidden_lost_or_doubled(
    backup: PrivatePostfix,
    drainer: Drainer,
    peer: Callable[..., PeerThread],
    step: str,
) -> None:
    """All but the unknown ones arrive once; those are named, and stay on hold."""
    admins = submit(backup, ["held@example.org"])
    backup.postsuper(["-h", admins[0]])
    submit(backup, *users(12))
    drainer.environment["DRAINER_RETRY__UNKNOWN"] = "1h"
    kill = {"at": 4}
    reply = {"mail": OK, "data": "354 go", "dot": OK}

    def killing(_: View) -> str:
        kill["at"] -= 1
        if not kill["at"]:
            process.send_signal(signal.SIGKILL)
            process.wait()
        return reply[step]

    primary = peer(lenient=True, **{step: killing})
    process = drainer.start(
        *drain_arguments(source(backup), primary.port, "--no-check"),
        "--connections", "2",
    )  # fmt: skip
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    result = drain(drainer, backup, primary.port)
    assert result.code in (0, 5), result.stderr
    unknown = {row["forward_path"] for row in drainer.recipients("--state", "unknown")}
    assert len(unknown) <= 2
    got = copies(primary)
    assert set(got) | unknown == {path for [path] in users(12)}
    assert {path for path, n in got.items() if n > 1} <= unknown
    assert len(names(backup, "hold") - set(admins)) == len(unknown)
    assert names(backup, "deferred") == set()


def test_a_note_that_was_torn_while_it_was_written_is_read_to_its_last_line(
    backup: PrivatePostfix, drainer: Drainer, peer: Callable[..., PeerThread]
) -> None:
    """Nothing was held in the name of half a line."""
    submit(backup, *users(1))
    primary = peer()
    assert drain(drainer, backup, primary.port).code == 0
    [note] = Path(f"{drainer.ledger}.locks").glob("taken-*")
    note.write_text("taking ABC 0123\nback ABC\ntaking 4")
    submit(backup, *users(1, first=1))
    assert drain(drainer, backup, primary.port).code == 0
    assert len(primary.accepted) == 2
    assert note.read_text() == ""


def test_what_is_taken_is_locked_against_others_and_goes_back(
    backup: PrivatePostfix, tmp_path: Path
) -> None:
    """A note that another process has is not ours."""
    [id_] = submit(backup, *users(1))
    live = PostfixLive(backup.config_dir)
    note = tmp_path / "note"
    list(live.take(note, OURS))
    descriptor = os.open(note, os.O_RDWR)
    with pytest.raises(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)
    assert names(backup, "hold") == {id_}
    live.give_back(note, NOTHING)
    assert names(backup, "deferred") == {id_}


def test_the_postsuper_of_a_killed_drain_is_waited_for(tmp_path: Path) -> None:
    """It has the note locked until it ends, and may still put mail on hold."""
    note = HoldNote(tmp_path / "note")
    note.taking({"4ABC": "0" * 32})
    heir = subprocess.Popen(["sleep", "0.5"], pass_fds=(note.descriptor,))
    os.close(note.descriptor)
    assert heir.poll() is None
    again = HoldNote(tmp_path / "note")
    assert heir.wait() == 0
    assert again.entries() == {"4ABC": HoldEntry("0" * 32, held=False)}
    again.close()


def test_a_note_keeps_what_still_counts(tmp_path: Path) -> None:
    """Closing it forgets what went back; only its owner may read it."""
    path = tmp_path / "locks" / "note"
    note = HoldNote(path)
    note.taking({"1A": "a" * 32, "2B": "b" * 32, "3C": "c" * 32})
    note.record_held(["1A", "2B"])
    note.back(["1A"])
    copy = pickle.loads(pickle.dumps(note))  # noqa: S301 - our own
    held, noted = HoldEntry("b" * 32, held=True), HoldEntry("c" * 32, held=False)
    assert copy.entries() == {"2B": held, "3C": noted}
    note.close()
    assert len(path.read_text().splitlines()) == 3
    assert path.stat().st_mode & 0o777 == 0o600
    assert HoldNote(path).entries() == copy.entries()


# ---- whose mail it is


def test_relay_domains_are_read_from_tables_and_files(
    idle: PrivatePostfix, tmp_path: Path
) -> None:
    """Keys of tables, words of files, and what lies below where Postfix says so."""
    (tmp_path / "list").write_text("# ours\nfile.example, other.example\n")
    idle.set(
        relay_domains=f"Example.ORG inline:{{a.example=1, b.example=2}} {tmp_path}/list"
    )
    found = PostfixLive(idle.config_dir).domains()
    plain = ("example.org", "a.example", "b.example", "file.example", "other.example")
    assert set(found) == {*plain, *(f".{each}" for each in plain)}
    idle.set(parent_domain_matches_subdomains="", relay_domains="example.org")
    assert PostfixLive(idle.config_dir).domains() == ("example.org",)


@pytest.mark.parametrize(
    ("domains", "words"),
    [
        ("", "is empty"),
        ("example.org, static:all", "static:all"),
        ("hash:/nowhere/table", "hash:/nowhere/table"),
        ("!no.example, example.org", "!no.example"),
        ("/nowhere/list", "/nowhere/list"),
    ],
)
def test_domains_that_cannot_be_read_must_be_configured(
    idle: PrivatePostfix, domains: str, words: str
) -> None:
    """They are named, and nothing is guessed."""
    idle.set(relay_domains=domains)
    with pytest.raises(UsageError, match=re.escape(words)) as caught:
        PostfixLive(idle.config_dir).domains()
    assert "[primary] domains" in caught.value.hint


def test_configured_domains_are_not_looked_up(
    idle: PrivatePostfix, drainer: Drainer
) -> None:
    """Exit status 2 without them."""
    idle.set(relay_domains="static:all")
    assert drainer.run("plan", source(idle)).code == 2
    drainer.environment["DRAINER_PRIMARY__DOMAINS"] = '["example.org"]'
    assert drainer.run("plan", source(idle)).code == 0


# ---- where it sends the mail


def test_without_a_primary_mail_goes_where_postfix_would_send_it(
    backup: PrivatePostfix, drainer: Drainer, peer: Callable[..., PeerThread]
) -> None:
    """By its transport table; it says so."""
    submit(backup, *users(3))
    primary = peer()
    entry = f"{{example.org = relay:[127.0.0.1]:{primary.port}}}"
    backup.set(transport_maps=f"inline:{{ {entry} }}")
    result = drainer.run("drain", source(backup), "--no-check")
    assert result.code == 0, result.stderr
    assert copies(primary) == Counter(path for [path] in users(3))
    assert f"example.org to 127.0.0.1:{primary.port}" in result.stderr


def test_an_address_with_a_transport_of_its_own_is_not_sent_elsewhere(
    idle: PrivatePostfix, drainer: Drainer
) -> None:
    """Routes are by domain: a person must write them."""
    entries = "{example.org = relay:[127.0.0.1]}, {boss@example.org = relay:[mx9]}"
    idle.set(transport_maps=f"inline:{{ {entries} }}")
    result = drainer.run("drain", source(idle), "--no-check")
    assert result.code == 2
    assert "has a transport for boss@example.org" in result.stderr


def test_init_writes_the_routes_that_postfix_knows(
    idle: PrivatePostfix, drainer: Drainer, tmp_path: Path
) -> None:
    """As a configuration that can be read; what a person must look at is said there."""
    table = (
        "inline:{ {a.example = relay:[mx1.a.example]:2525},"
        " {b.example = error:gone}, {.c.example = :[192.0.2.1]},"
        " {f.example = smtp:[mx1.f.example], [mx2.f.example]:26},"
        " {d.example = lmtp:inet:mda.example:2424},"
        " {me@a.example = relay:[mx9.example]}, {you@a.example = relay:[mx9.example]} }"
    )
    idle.set(
        relay_domains="a.example, a2.example, b.example, x.c.example, d.example"
        ", f.example",
        relay_transport="relay",
        transport_maps=f"{table}, regexp:/dev/null",
        parent_domain_matches_subdomains="",
        virtual_mailbox_domains="e.example, a3.example",
        virtual_transport="lmtp:unix:private/x",
        relay_recipient_maps="inline:{ {@d.example = ok}, {me@a.example = ok},"
        " {postmaster@a.example = ok}, {odd@@a2.example = ok} }, regexp:/nowhere",
    )
    path = tmp_path / "made.toml"
    made = drainer.run("init", path, "--from-postfix", idle.config_dir)
    assert made.code == 0, made.stderr
    text = path.read_text("utf-8")
    assert "# REVIEW: Postfix delivers it by the transport 'error:gone'" in text
    assert "has a transport for me@a.example and 1 more; routes are by" in text
    assert "# REVIEW: drainer cannot list regexp:/dev/null: it may have" in text
    routes = tomllib.loads(text)["routes"]
    known = {"host": "mx1.a.example", "port": 2525, "accept": ["postmaster@a.example"]}
    assert {"domains": ["a.example"]} | known in routes
    hosts = ["mx1.f.example:25", "mx2.f.example:26"]
    assert {"domains": ["f.example"], "hosts": hosts} in routes
    assert {"domains": ["x.c.example"], "host": "192.0.2.1", "port": 25} in routes
    assert {"domains": ["a2.example"], "hosts": "mx"} in routes
    lmtp = {"host": "mda.example", "port": 2424, "protocol": "lmtp"}
    assert {"domains": ["d.example"]} | lmtp in routes
    socket = f"unix:{idle.queue_dir}/private/x"
    assert {"domains": ["e.example", "a3.example"], "host": socket} in routes
    shown = drainer.run("config", "--config", path, "--json")
    assert shown.code == 0, shown.stderr


@pytest.mark.parametrize("queue", ["hold", "corrupt", "maildrop"])
def test_what_others_hold_is_not_drained_live(idle: PrivatePostfix, queue: str) -> None:
    """It can be inspected."""
    live = PostfixLive(idle.config_dir, queues=("deferred", queue))
    with pytest.raises(UsageError, match=queue):
        live.refuse_if_live()
    assert list(live.scan()) == []


def test_a_submission_that_was_not_cleaned_up_is_listed_and_never_sent(
    idle: PrivatePostfix, drainer: Drainer, peer: Callable[..., PeerThread]
) -> None:
    """Maildrop is inspected on request; its envelope is shown with the problem."""
    idle.sendmail(["-f", "me@client.example", "you@example.org"], b"Bcc: x\n\nhi\n")
    url = f"postfix:{idle.queue_dir}"
    [listed] = drainer.run("inspect", url, "--queue", "maildrop", "--json").objects
    assert listed["problem"]["code"] == "not-cleaned"
    assert listed["reverse_path"] == "me@client.example"
    assert [r["forward_path"] for r in listed["recipients"]] == ["you@example.org"]
    assert listed["sha256"]
    primary = peer()
    result = drainer.drain(url, primary.port, "--no-check", "--queue", "maildrop")
    assert result.code == 5
    assert primary.commands == [] or primary.accepted == []
    assert len(idle.queue_files(("maildrop",))) == 1
