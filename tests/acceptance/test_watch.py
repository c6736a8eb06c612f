"""Nobody is awake: a watch over a Postfix that comes, goes, and comes back broken."""

import smtplib
from collections import Counter
from collections.abc import Callable

from tests.support.command.runner import end
from tests.support.command.watch import Watcher, prepare, watching
from tests.support.mta.postfix import PrivatePostfix, wait_until
from tests.support.mta.roles import Primary
from tests.support.scenarios.backup import Backup
from tests.support.scenarios.primaries import Mail

NAMES = [f"user{n}@example.org" for n in range(30)]
LATER = [f"late{n}@example.org" for n in range(12)]
SLOWLY = {"throttle": {"rate": "15/second", "ramp": "0s", "adaptive": False}}


def mail(*recipients: str) -> list[Mail]:
    """Return a message to each."""
    return [
        Mail(recipients=(name,), sender=f"s{n}@sender{n % 5}.example")
        for n, name in enumerate(recipients)
    ]


def users(primary: Primary, name: str, *addresses: str) -> str:
    """Write a table of users; return what virtual_mailbox_maps takes."""
    path = primary.base / name
    path.write_text("".join(f"{each} all/\n" for each in addresses), "utf-8")
    path.chmod(0o644)
    return f"texthash:{path}"


def hooks(backup: Backup, *says: str) -> None:
    """Let several hooks speak at the same time."""
    processes = [backup.start("hook", say, "--reason", "monit") for say in says]
    assert [end(process).code for process in processes] == [0] * len(says)


def has_all(primary: Primary, names: list[str]) -> Counter[str]:
    """Wait until each has a copy; return how many. A killed server leaves scraps."""

    def copies() -> Counter[str]:
        return Counter(each.recipient.decode() for each in primary.received())

    wait_until(lambda: set(names) <= set(copies()), timeout=30, what="all deliveries")
    return copies()


def is_spool_empty(backup: Backup) -> bool:
    """Whether everything that was fed has left."""
    return not backup.left


def test_a_night_without_an_operator(
    backup: Backup, primary_postfix: Callable[..., Primary]
) -> None:
    """Down, back, killed amid the drain, back without users, mended: all arrive."""
    primary = primary_postfix(parameters={"smtpd_error_sleep_time": "0"})
    everybody = users(primary, "all", *NAMES, *LATER)
    primary.set(virtual_mailbox_maps=everybody)
    primary.stop()
    backup.port = primary.port
    prepare(backup, **SLOWLY)
    backup.configure(primary={"connections": 2}, breaker={"give_up_after": "20s"})
    backup.fill(mail(*NAMES))
    with watching(backup) as watch:
        _stays_probing_while_it_is_down(backup, watch)
        primary.start()
        watch.wait_for("ramp")
        _is_killed_amid_the_drain(primary, watch)
        armed = watch.wait_for("armed")
        wait_until(lambda: is_spool_empty(backup), timeout=10, what="an empty spool")
        has_all(primary, NAMES)
        primary.set(virtual_mailbox_maps=users(primary, "none"))
        primary.reload()
        backup.fill(mail(*LATER))
        refused = watch.wait_for("waiting", after=armed, why="refused")
        assert not {"bounced", "bounce-pending"} & set(backup.states().values())
        primary.set(virtual_mailbox_maps=everybody)
        primary.reload()
        hooks(backup, "up", "up")
        watch.wait_for("armed", after=refused)
        triggered = [why for _, why in watch.changes if why.startswith("up by cli")]
        assert len(triggered) == 1
    assert set(backup.states().values()) == {"delivered"}
    copies = has_all(primary, [*NAMES, *LATER])
    assert set(copies) == {*NAMES, *LATER}
    assert copies.total() <= len(copies) + 2  # one in doubt for each session that died
    assert not backup.left
    backup.assert_balanced()


def _stays_probing_while_it_is_down(backup: Backup, watch: Watcher) -> None:
    watch.wait_said("the primary is not ready: connect")
    hooks(backup, "up", "up")
    assert set(watch.states) == {"probing"}


def _is_killed_amid_the_drain(primary: Primary, watch: Watcher) -> None:
    primary.wait_received(8)
    seen = watch.mark()
    primary.kill()
    broken = watch.wait_for("waiting", after=seen)
    watch.wait_for("probing", after=broken)
    assert len(primary.received()) < len(NAMES)
    primary.start()


def test_new_mail_is_taken_up_by_the_drain_that_runs(
    backup: Backup, primary_postfix: Callable[..., Primary]
) -> None:
    """One drain sends what was there and what came meanwhile."""
    primary = primary_postfix()
    backup.port = primary.port
    prepare(backup, throttle={"rate": "5/second", "ramp": "0s"})
    backup.fill(mail(*NAMES[:12]))
    with watching(backup) as watch:
        primary.wait_received(3)
        backup.fill(mail(*LATER[:2]))
        watch.wait_for("armed")
        assert watch.states.count("canary") == 1
        assert "14 messages sent" in watch.text
    assert set(backup.states()) == {*NAMES[:12], *LATER[:2]}


def test_a_backup_that_runs_is_watched_and_mail_for_others_left_to_it(
    backup: Backup,
    backup_postfix: Callable[..., PrivatePostfix],
    primary_postfix: Callable[..., Primary],
) -> None:
    """What comes is sent, and what is not the primary's makes no drain begin."""
    running = backup_postfix(parameters={"mynetworks": "127.0.0.0/8"})
    primary = primary_postfix()
    backup.port = primary.port
    prepare(backup)
    foreign = ["someone@elsewhere.example"]
    submit(running, foreign, [NAMES[0]])
    with watching(backup, f"postfix:live={running.config_dir}") as watch:
        armed = watch.wait_for("armed")
        submit(running, foreign, [NAMES[1]])
        watch.wait_for("armed", after=armed)
        running.wait_queue(2)  # the foreign ones
        wait_until(lambda: watch.idle > 3, timeout=30, what="a quiet time")
        assert watch.states.count("canary") == 2
    assert len(primary.wait_received(2)) == 2


def submit(postfix: PrivatePostfix, *recipients: list[str]) -> None:
    """Send a message to each group of recipients."""
    with smtplib.SMTP("127.0.0.1", postfix.port) as client:
        for n, group in enumerate(recipients):
            client.sendmail("a@client.example", group, f"Subject: {n}\r\n\r\nx\r\n")


def test_a_watch_that_is_ended_amid_a_drain_leaves_nothing_in_doubt(
    backup: Backup, primary_postfix: Callable[..., Primary]
) -> None:
    """SIGTERM: exit 0, each session has finished its message; the next goes on."""
    primary = primary_postfix()
    backup.port = primary.port
    prepare(backup, throttle={"rate": "10/second", "ramp": "0s"})
    backup.fill(mail(*NAMES))
    with watching(backup) as watch:
        primary.wait_received(5)
    states = Counter(backup.states().values())
    assert states.keys() <= {"pending", "delivered", "deferred"}
    assert states["delivered"] >= 5
    assert watch.text.rstrip().endswith("watch ended")
    backup.assert_balanced()
    backup.configure(throttle={"rate": "unlimited"})
    with watching(backup) as watch:
        watch.wait_for("armed")
    primary.wait_queue(0, ("incoming", "active"))
    copies = Counter(each.recipient.decode() for each in primary.received())
    assert copies == Counter(NAMES)
