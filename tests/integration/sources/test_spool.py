"""A stopped Postfix is drained in place, or by a copy; then it starts again.

After each drain the backup starts and flushes. The primary must get nothing twice, and
what was left must arrive or still be there.
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import smtplib
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from drainer.errors import OwnedElsewhere, UsageError
from drainer.policy.admission.admit import Admission
from drainer.sources.postfix.instance import instance_at
from drainer.sources.postfix.master import lock_master, master_runs
from drainer.sources.postfix.note import HoldEntry, HoldNote
from drainer.sources.postfix.spool import PostfixSpool
from tests.support.command.installed import Drainer, Result, drain_arguments
from tests.support.mta import roles
from tests.support.mta.postfix import (
    PrivatePostfix,
    free_port,
    instance_directory,
    missing_reason,
)
from tests.support.mta.queues import copies, names, relay_port, submit, users
from tests.support.smtp_peer.peer import PeerThread
from tests.support.smtp_peer.script import Delay, Script, View, per_recipient

OK = "250 2.0.0 ok"
ALL = ("incoming", "active", "deferred", "hold")


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
def drainer(tmp_path: Path, backup: PrivatePostfix) -> Drainer:
    """Give the command on the host of this backup, with a ledger of its own."""
    made = Drainer(tmp_path / "ledger.db")
    made.environment["MAIL_CONFIG"] = str(backup.config_dir)
    return made


@pytest.fixture
def primary(
    backup: PrivatePostfix, peer: Callable[..., PeerThread]
) -> Callable[..., PeerThread]:
    """Give a function that starts the primary, where the backup looks for it too."""
    return lambda **fields: peer(port=relay_port(backup), **fields)


def source(backup: PrivatePostfix) -> str:
    """Return the URL of the queue directory."""
    return f"postfix:{backup.queue_dir}"


def drain(drainer: Drainer, url: str, primary: PeerThread, *more: object) -> Result:
    """Drain without a health check."""
    return drainer.drain(url, primary.port, "--no-check", *more)


def restart(backup: PrivatePostfix, primary: PeerThread) -> None:
    """Start the backup with a primary that accepts everything, and let it send."""
    primary.script = Script()
    backup.start()
    backup.flush()
    backup.wait_queue(0, ("incoming", "active", "deferred"))


def left_and_sent(backup: PrivatePostfix, primary: PeerThread) -> Counter[str]:
    """Return how often each recipient of ``users`` was sent to, or is on hold."""
    found = copies(primary)
    for name in names(backup, "hold"):
        text = backup.postcat(["-eq", name]).decode()
        found.update(re.findall(r"\nrecipient: (user\S+)", text))
    return found


def once(count: int) -> Counter[str]:
    """Return every recipient of ``users``, once."""
    return Counter(path for [path] in users(count))


# ---- in place


def test_a_stopped_queue_is_settled_as_its_own_server_would(
    backup: PrivatePostfix,
    drainer: Drainer,
    primary: Callable[..., PeerThread],
) -> None:
    """Finished mail is gone, done recipients are marked, tried mail is on hold."""
    admins = submit(backup, ["held@example.org"])
    backup.postsuper(["-h", admins[0]])
    submit(backup, *users(20))
    mixed = submit(backup, ["one@example.org", "no@example.org", "two@example.org"])
    late = submit(backup, ["late@example.org"])
    other = submit(backup, ["three@example.org", "x@elsewhere.example"])
    backup.stop()
    dropped = backup.queue_dir / "maildrop" / "A1B2C3D4E5"
    dropped.write_bytes(b"Postfix takes it when it starts")
    drainer.environment["DRAINER_PRIMARY__DOMAINS"] = '["example.org"]'
    server = primary(
        rcpt=per_recipient(
            {"no@example.org": "550 5.1.1 no", "late@example.org": "450 4.2.0 later"}
        )
    )
    result = drain(drainer, source(backup), server)
    assert result.code == 5, result.stderr
    counted = (
        "2 messages are left to Postfix, 2 stay on hold for drainer, 1 for others."
    )
    assert counted in result.stderr + result.stdout
    dropped.unlink()
    assert names(backup, "hold") == {*admins, *mixed, *late}
    assert names(backup, "deferred") == set(other), "Postfix has a recipient of it left"
    text = backup.postcat(["-eq", mixed[0]]).decode()
    assert "\ndone_recipient: one@example.org" in text
    assert "\nrecipient: no@example.org" in text
    got = copies(server)
    restart(backup, server)
    assert copies(server) - got == Counter(["x@elsewhere.example"])
    assert names(backup, "hold") == {*admins, *mixed, *late}
    assert max(copies(server).values()) == 1
    backup.stop()
    again = drain(drainer, source(backup), server)
    assert "late@example.org" in copies(server), again.stderr
    assert names(backup, "hold") == {*admins, *mixed}
    assert max(copies(server).values()) == 1


def test_a_queue_without_its_instance_is_settled_on_request(
    backup: PrivatePostfix,
    drainer: Drainer,
    primary: Callable[..., PeerThread],
) -> None:
    """With ack=remove: as the volume of a container is drained from its host."""
    submit(backup, *users(3), ["one@example.org", "no@example.org"])
    backup.stop()
    volume = backup.base / "apart" / "volume"
    volume.parent.mkdir()
    backup.queue_dir.rename(volume)
    server = primary(rcpt=per_recipient({"no@example.org": "550 5.1.1 no"}))
    result = drain(drainer, f"postfix:{volume}?ack=remove", server)
    assert result.code == 5, result.stderr
    volume.rename(backup.queue_dir)
    assert names(backup, "deferred") == set()
    restart(backup, server)
    assert copies(server) == once(3) + Counter(["one@example.org"])
    assert len(names(backup, "hold")) == 1


def test_an_instance_that_is_not_registered_is_found_beside_its_queue(
    backup: PrivatePostfix,
    drainer: Drainer,
    primary: Callable[..., PeerThread],
) -> None:
    """Its main.cf must belong to root; a rehearsal changes nothing in its queue."""
    del drainer.environment["MAIL_CONFIG"]
    ids = submit(backup, *users(3))
    backup.stop()
    server = primary()
    drain(drainer, source(backup), server, "--rehearse")
    assert names(backup, "deferred") == set(ids)
    server.messages.clear()
    backup.config_dir.chmod(0o777)
    assert drain(drainer, source(backup), server, "--dry-run").code == 0
    assert instance_at(str(backup.queue_dir)) is None
    backup.config_dir.chmod(0o755)
    result = drain(drainer, source(backup), server)
    assert result.code == 0, result.stderr
    [spool] = result.objects[-1]["spools"]
    assert spool["command"] == f"postfix -c {backup.config_dir} start"
    restart(backup, server)
    assert copies(server) == once(3)


def test_a_message_whose_report_is_pending_goes_back_to_postfix(
    backup: PrivatePostfix,
    drainer: Drainer,
    primary: Callable[..., PeerThread],
) -> None:
    """Removing it would remove the report too; all its recipients are marked."""
    [id_] = submit(backup, ["one@example.org"])
    backup.stop()
    log = backup.queue_dir / "bounce" / id_
    log.write_text(
        "<x@example.org>: refused\nrecipient=x@example.org\noffset=1\n"
        "status=5.1.1\naction=failed\nreason=refused\n\n"
    )
    log.chmod(0o600)
    shutil.chown(log, "postfix")
    server = primary()
    result = drain(drainer, source(backup), server)
    assert result.code == 0, result.stderr
    assert names(backup, "deferred") == {id_}
    text = backup.postcat(["-eq", id_]).decode()
    assert "\ndone_recipient: one@example.org" in text
    assert log.exists()


def test_postfix_cannot_start_during_the_drain_and_its_stop_ends_the_drain(
    backup: PrivatePostfix,
    drainer: Drainer,
    primary: Callable[..., PeerThread],
) -> None:
    """Its own scripts take the drain for a running mail system; reload is ignored."""
    submit(backup, *users(12))
    backup.stop()
    server = primary(dot=Delay(0.5, OK))
    process = drainer.start(
        *drain_arguments(source(backup), server.port, "--no-check"),
        "--connections", "1",
    )  # fmt: skip
    server.wait(lambda: len(server.messages) >= 2, timeout=60)
    assert backup.call("postfix", "start").returncode == 1
    assert backup.call("postfix", "status").returncode == 0
    assert "the Postfix mail system is already running" in backup.log()
    assert f"the Postfix mail system is running: PID: {process.pid}" in backup.log()
    assert backup.call("postfix", "check").returncode == 0
    assert backup.call("postfix", "reload").returncode == 0
    before = len(server.messages)
    server.wait(lambda: len(server.messages) > before, timeout=60)
    backup.call("postfix", "stop")
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "postfix -c" in stdout
    assert len(server.accepted) < 12
    restart(backup, server)
    assert copies(server) == once(12)
    assert names(backup, "hold") == set()


def test_a_drain_that_the_script_kills_leaves_what_it_began_on_hold(
    backup: PrivatePostfix,
    drainer: Drainer,
    primary: Callable[..., PeerThread],
) -> None:
    """After five seconds `postfix stop` means to kill the process group of the drain.

    In this version its awk always fails, so that it does not; then the test does.
    """
    submit(backup, *users(4))
    backup.stop()
    server = primary(dot=Delay(60, OK), lenient=True)
    process = drainer.start(
        *drain_arguments(source(backup), server.port, "--no-check"), leads_group=True
    )
    server.wait(lambda: len(server.messages) >= 1, timeout=60)
    backup.call("postfix", "stop")
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    begun = {path for m in server.messages for path in m.forward_paths}
    server.messages.clear()
    restart(backup, server)
    assert set(copies(server)) == set(once(4)) - begun
    assert max(copies(server).values(), default=1) == 1
    assert len(names(backup, "hold")) == len(begun)


def test_a_postfix_that_starts_before_the_drain_takes_the_lock_is_left_alone(
    backup: PrivatePostfix, tmp_path: Path
) -> None:
    """The check came before, and nothing is held in its queue."""
    ids = submit(backup, *users(1))
    queue = PostfixSpool(backup.queue_dir)
    with pytest.raises(UsageError, match="is running"):
        list(queue.take(tmp_path / "note", Admission()))
    assert names(backup, "deferred") == set(ids)
    HoldNote(tmp_path / "note").close()


def test_nothing_is_sent_that_cannot_be_put_on_hold(
    backup: PrivatePostfix,
    drainer: Drainer,
    primary: Callable[..., PeerThread],
) -> None:
    """The drain ends before the final dot, and says what to correct."""
    ids = submit(backup, *users(2))
    backup.stop()
    (backup.queue_dir / "hold").chmod(0o500)  # drainer acts as its owner there
    server = primary(lenient=True)
    result = drain(drainer, source(backup), server)
    assert result.code == 2
    assert "cannot move deferred/" in result.stderr
    assert server.accepted == []
    assert names(backup, "deferred") == set(ids)


def test_a_running_postfix_is_refused_whatever_is_to_become_of_its_mail(
    backup: PrivatePostfix,
    drainer: Drainer,
    primary: Callable[..., PeerThread],
) -> None:
    """Exit status 2; postfix:live is named, and nothing is changed."""
    submit(backup, *users(1))
    server = primary()
    for url in (source(backup), f"{source(backup)}?ack=remove"):
        refused = drain(drainer, url, server)
        assert refused.code == 2
        assert "postfix:live" in refused.stderr
    settled = drainer.run("spool", "settle", source(backup))
    assert settled.code == 2
    assert len(names(backup, "deferred")) == 1


def test_a_second_drain_leaves_the_queue_to_the_first(
    backup: PrivatePostfix,
    drainer: Drainer,
    primary: Callable[..., PeerThread],
    tmp_path: Path,
) -> None:
    """Exit status 6; with another ledger 2."""
    submit(backup, *users(6))
    backup.stop()
    other = Drainer(tmp_path / "other" / "ledger.db")
    other.ledger.parent.mkdir()
    server = primary(dot=Delay(0.3, OK))
    arguments = drain_arguments(source(backup), server.port, "--no-check")
    first = drainer.start(*arguments, "--connections", "1")
    server.wait(lambda: len(server.messages) >= 1, timeout=60)
    first.send_signal(signal.SIGSTOP)
    assert drainer.run(*arguments).code == 6
    assert other.run(*arguments).code == 2
    first.send_signal(signal.SIGCONT)
    _, stderr = first.communicate(timeout=60)
    assert first.returncode == 0, stderr
    assert copies(server) == once(6)


def test_a_queue_that_is_to_be_kept_stays_as_it_is(
    backup: PrivatePostfix,
    drainer: Drainer,
    primary: Callable[..., PeerThread],
) -> None:
    """With ack=keep nothing moves; the end names the command that settles it."""
    ids = submit(backup, *users(3))
    backup.stop()
    server = primary()
    result = drain(drainer, f"{source(backup)}?ack=keep", server)
    assert result.code == 0, result.stderr
    assert names(backup, "deferred") == set(ids)
    [spool] = result.objects[-1]["spools"]
    assert f"spool settle {source(backup)}" in spool["command"]
    settle(drainer, spool["command"])
    restart(backup, server)
    assert copies(server) == once(3)


def test_what_an_operator_sets_aside_is_not_left_to_postfix(
    backup: PrivatePostfix,
    drainer: Drainer,
    primary: Callable[..., PeerThread],
) -> None:
    """`drainer hold` before any attempt: the message stays on hold, also here."""
    submit(backup, *users(3))
    backup.stop()
    server = primary()
    assert drain(drainer, source(backup), server, "--limit", "1").code == 0
    [first] = copies(server)
    [held, _] = [path for [path] in users(3) if path != first]
    asked = drainer.run("hold", "--recipient", held, "--reason", "ask them")
    assert asked.code == 0, asked.stderr
    assert drain(drainer, source(backup), server).code == 5
    assert len(names(backup, "hold")) == 1
    restart(backup, server)
    assert copies(server) == once(3) - Counter([held])
    assert len(names(backup, "hold")) == 1


def test_a_hashed_queue_keeps_its_shape(
    backup: PrivatePostfix,
    drainer: Drainer,
    primary: Callable[..., PeerThread],
) -> None:
    """Drainer moves files to where this Postfix looks for them."""
    backup.set(hash_queue_names="deferred, defer, hold, active", hash_queue_depth="2")
    backup.reload()
    submit(backup, *users(2))
    submit(backup, ["one@example.org", "x@elsewhere.example"])
    backup.stop()
    drainer.environment["DRAINER_PRIMARY__DOMAINS"] = '["example.org"]'
    server = primary(rcpt=per_recipient({"user1@example.org": "450 4.2.0 later"}))
    assert drain(drainer, source(backup), server).code == 5
    [held] = backup.queue_files(("hold",))
    [left] = backup.queue_files(("deferred",))
    for path, queue in ((held, "hold"), (left, "deferred")):
        place = path.relative_to(backup.queue_dir / queue).parts
        assert place == (path.name[0], path.name[1], path.name)
    restart(backup, server)
    assert backup.queue_files(("hold",)) == [held]
    assert copies(server)["x@elsewhere.example"] == 1


def test_what_drainer_holds_is_not_shown_as_mail_that_others_hold(
    backup: PrivatePostfix,
    drainer: Drainer,
    primary: Callable[..., PeerThread],
) -> None:
    """The plan counts it; only the administrator's own is left out, and named."""
    admins = submit(backup, ["held@example.org"])
    backup.postsuper(["-h", admins[0]])
    submit(backup, ["late@example.org"])
    backup.stop()
    server = primary(rcpt="450 4.2.0 later")
    result = drain(drainer, source(backup), server)
    assert "1 messages of" in result.stderr
    plan = drainer.run("plan", source(backup), "--json")
    assert plan.objects[0]["recipients"] == 1
    assert "1 messages of" in plan.stderr


# ---- killed


@pytest.mark.parametrize("step", ["mail", "data", "dot"])
def test_killed_at_a_step_the_backup_sends_nothing_again(
    backup: PrivatePostfix,
    drainer: Drainer,
    primary: Callable[..., PeerThread],
    step: str,
) -> None:
    """It starts without a rerun: what drainer had begun is on hold, the rest is sent.

    The next drain continues with what is on hold, while Postfix runs.
    """
    submit(backup, *users(12))
    backup.stop()
    drainer.environment["DRAINER_RETRY__UNKNOWN"] = "1h"
    kill = {"at": 4}
    reply = {"mail": OK, "data": "354 go", "dot": OK}

    def killing(_: View) -> str:
        kill["at"] -= 1
        if not kill["at"]:
            process.send_signal(signal.SIGKILL)
            process.wait()
        return reply[step]

    server = primary(lenient=True, **{step: killing})
    process = drainer.start(
        *drain_arguments(source(backup), server.port, "--no-check"),
        "--connections", "2",
    )  # fmt: skip
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    restart(backup, server)
    got = copies(server)
    assert max(got.values()) == 1
    assert set(left_and_sent(backup, server)) == set(once(12))
    live = f"postfix:live={backup.config_dir}"
    result = drain(drainer, live, server)
    assert result.code in (0, 5), result.stderr
    rows = drainer.recipients("--state", "unknown")
    unknown = {row["forward_path"] for row in rows}
    assert len(unknown) <= 2
    again = {path for path, n in copies(server).items() if n > 1}
    assert again <= unknown, "only what is in doubt may arrive twice"
    assert set(left_and_sent(backup, server)) == set(once(12))


def test_killed_while_it_settles_the_rerun_completes_it(
    backup: PrivatePostfix,
    drainer: Drainer,
    primary: Callable[..., PeerThread],
) -> None:
    """Messages with a recipient left are on hold, or the next run puts them there."""
    groups = [[f"user{n}@example.org", f"later{n}@example.org"] for n in range(8)]
    submit(backup, *groups)
    backup.stop()
    later = {f"later{n}@example.org": "450 4.2.0 later" for n in range(8)}
    server = primary(rcpt=per_recipient(later))
    process = drainer.start(*drain_arguments(source(backup), server.port, "--no-check"))
    server.wait(lambda: len(server.accepted) >= 4, timeout=60)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    result = drain(drainer, source(backup), server)
    assert result.code == 5, result.stderr
    in_doubt = drainer.recipients("--state", "unknown")
    assert len(names(backup, "hold")) == 8
    got = copies(server)
    restart(backup, server)
    assert copies(server) == got, "Postfix has nothing to send"
    assert len(names(backup, "hold")) == 8
    assert {path for path, n in got.items() if n > 1} <= {
        row["forward_path"] for row in in_doubt
    } | {path for path, n in got.items() if n > 1 and path.startswith("user")}


# ---- while Postfix runs again


def test_pending_bounces_are_confirmed_while_the_backup_runs(
    backup: PrivatePostfix,
    drainer: Drainer,
    primary: Callable[..., PeerThread],
) -> None:
    """`bounces run` reads the message from hold, and removes it when it is final."""
    submit(backup, *users(3), ["no@example.org"])
    backup.stop()
    drainer.environment["DRAINER_BOUNCE__CONFIRM_AFTER"] = "1s"
    server = primary(rcpt=per_recipient({"no@example.org": "550 5.1.1 no"}))
    assert drain(drainer, source(backup), server).code == 5
    assert len(names(backup, "hold")) == 1
    backup.start()
    to = ("--to", f"127.0.0.1:{server.port}", "--no-check", "--json")
    time.sleep(1.1)  # the confirmation delay
    result = drainer.run("bounces", "run", *to)
    assert result.code in (0, 5), result.stderr
    [row] = drainer.recipients("--recipient", "no@")
    assert (row["state"], row["attempts"]) == ("bounce-pending", 2)
    assert len(names(backup, "hold")) == 1
    assert drainer.run("bounces", "cancel", row["id"], "--reason", "spam").code == 0
    assert drainer.run("bounces", "run", *to).code == 0
    assert names(backup, "hold") == set()
    assert max(copies(server).values()) == 1


# ---- a copy


def settle(drainer: Drainer, command: str, *more: str) -> Result:
    """Run the command that a drain printed."""
    words = shlex.split(command)
    assert words[0] == "drainer"
    return drainer.run(*words[1:], *more)


@pytest.mark.parametrize("kind", ["stopped", "running"])
def test_a_drained_copy_settles_its_original(
    backup: PrivatePostfix,
    drainer: Drainer,
    primary: Callable[..., PeerThread],
    tmp_path: Path,
    kind: str,
) -> None:
    """The end of the drain prints the command, which also works on a running one."""
    admins = submit(backup, ["held@example.org"])
    backup.postsuper(["-h", admins[0]])
    submit(backup, *users(20))
    mixed = submit(backup, ["one@example.org", "no@example.org"])
    other = submit(backup, ["two@example.org", "x@elsewhere.example"])
    if kind == "running":  # it must not send before it is settled
        backup.set(defer_transports="smtp, relay")
        backup.reload()
    else:
        backup.stop()
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", backup.queue_dir, copy], check=True)
    drainer.environment["DRAINER_PRIMARY__DOMAINS"] = '["example.org"]'
    server = primary(rcpt=per_recipient({"no@example.org": "550 5.1.1 no"}))
    result = drain(drainer, f"postfix:{copy}", server)
    assert result.code == 5, result.stderr
    assert "is a copy of" in result.stderr
    [spool] = result.objects[-1]["spools"]
    assert "22 messages that are delivered, all or in part" in spool["words"]
    before = {name: names(backup, name) for name in ALL}
    dry = settle(drainer, spool["command"], "--dry-run", "--json").objects[0]
    assert (dry["removed"], dry["released"], dry["waiting"]) == (20, 1, 1)
    assert {name: names(backup, name) for name in ALL} == before
    done = settle(drainer, spool["command"], "--json")
    assert done.code == 0, done.stderr
    assert done.objects[0] == dry | {"dry_run": False}
    assert names(backup, "hold") == {*admins, *mixed}
    assert names(backup, "deferred") == set(other)
    got = copies(server)
    if kind == "running":
        backup.set(defer_transports="")
        backup.stop()
    restart(backup, server)
    assert copies(server) - got == Counter(["x@elsewhere.example"])
    assert max(copies(server).values()) == 1
    assert settle(drainer, spool["command"].replace("live=", "live=")).code in (0, 2)


def test_an_original_that_is_named_is_settled_without_its_instance(
    backup: PrivatePostfix,
    drainer: Drainer,
    primary: Callable[..., PeerThread],
    tmp_path: Path,
) -> None:
    """`--copy-of` names what has no configuration here: a container's volume."""
    del drainer.environment["MAIL_CONFIG"]
    submit(backup, *users(3), ["one@example.org", "late@example.org"])
    backup.stop()
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", backup.queue_dir, copy], check=True)
    server = primary(rcpt=per_recipient({"late@example.org": "450 4.2.0 later"}))
    named = ("--copy-of", backup.queue_dir)
    result = drain(drainer, f"postfix:{copy}", server, *named)
    assert result.code == 5, result.stderr
    [spool] = result.objects[-1]["spools"]
    assert "4 messages that are delivered, all or in part" in spool["words"]
    assert settle(drainer, spool["command"]).code == 0
    got = copies(server)
    restart(backup, server)
    assert copies(server) == got, "only what is on hold is left"
    assert len(names(backup, "hold")) == 1


def test_a_drained_copy_needs_no_settlement_before_a_drain_in_place(
    backup: PrivatePostfix,
    drainer: Drainer,
    primary: Callable[..., PeerThread],
    tmp_path: Path,
) -> None:
    """With the same ledger: what is delivered is removed, the rest is sent."""
    submit(backup, *users(3), ["one@example.org", "late@example.org"])
    backup.stop()
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", backup.queue_dir, copy], check=True)
    server = primary(rcpt=per_recipient({"late@example.org": "450 4.2.0 later"}))
    assert drain(drainer, f"postfix:{copy}", server).code == 5
    server.script = Script()
    result = drain(drainer, source(backup), server)
    assert result.code == 0, result.stderr
    assert all(not names(backup, name) for name in ALL)
    wanted = ["one@example.org", "late@example.org"]
    assert copies(server) == once(3) + Counter(wanted)


def test_a_message_that_only_starts_like_a_delivered_one_is_not_removed(
    backup: PrivatePostfix,
    drainer: Drainer,
    primary: Callable[..., PeerThread],
    tmp_path: Path,
) -> None:
    """Arrival, sender and the first 4 KiB are the same: the whole content counts."""
    with smtplib.SMTP("127.0.0.1", backup.port) as client:
        text = "Subject: long\r\n\r\n" + "0123456789\r\n" * 600 + "the end\r\n"
        client.sendmail("a@client.example", ["one@example.org"], text)
    [path] = backup.wait_queue(1)
    backup.stop()
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", backup.queue_dir, copy], check=True)
    server = primary()
    result = drain(drainer, f"postfix:{copy}", server)
    assert result.code == 0, result.stderr
    path.write_bytes(path.read_bytes().replace(b"the end", b"THE END"))
    [spool] = result.objects[-1]["spools"]
    for more in (("--dry-run",), ()):
        done = settle(drainer, spool["command"], "--json", *more)
        assert done.code == 5
        assert (done.objects[0]["removed"], done.objects[0]["unlike"]) == (0, 1)
    assert names(backup, "deferred") == {path.name}


# ---- without a Postfix


def test_a_folder_that_no_postfix_has_used_needs_no_lock(tmp_path: Path) -> None:
    """Without ``pid`` no master can be running on it."""
    assert lock_master(str(tmp_path)) is None


def test_the_lock_names_its_owner_as_a_master_does(tmp_path: Path) -> None:
    """Postfix's script reads the first line; whatever was there before is gone."""
    (tmp_path / "pid").mkdir()
    file = tmp_path / "pid" / "master.pid"
    file.write_text("999999999\nof another program\n")
    lock = lock_master(str(tmp_path))
    assert lock is not None
    assert file.read_text() == f"{os.getpid():>32}\n"
    assert not master_runs(str(tmp_path)), "a drain is no master"
    with pytest.raises(OwnedElsewhere):
        lock_master(str(tmp_path))
    os.close(lock)
    again = lock_master(str(tmp_path))
    assert again is not None
    os.close(again)


@pytest.mark.parametrize("name", ["two words", "line\nbreak", "100%", "\udcff"])
def test_a_note_keeps_any_name_of_a_file(tmp_path: Path, name: str) -> None:
    """An attacker may have named it."""
    note = HoldNote(tmp_path / "note")
    note.taking({name: "a" * 32})
    note.record_held([name])
    note.found({"ours": "b" * 32})
    note.close()
    again = HoldNote(tmp_path / "note")
    assert again.entries() == {
        name: HoldEntry("a" * 32, held=True),
        "ours": HoldEntry("b" * 32, held=True, of_others=True),
    }
    again.back([name, "ours"])
    again.close()
    assert (tmp_path / "note").read_text() == ""
