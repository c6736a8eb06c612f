"""Where files are on this host: ledger, locks, quarantined copies."""

import hashlib
import os
import shlex
from pathlib import Path

from sqlalchemy.engine import URL

from drainer.config import Config
from drainer.errors import UsageError
from drainer.ledger import engine
from drainer.runtime.private_files import remove_private

LedgerURL = engine.LedgerURL


def ledger_url(config: Config) -> URL:
    """Return the URL of the ledger."""
    if config.ledger.url:
        return engine.parse_url(config.ledger.url)
    return engine.parse_url(str(_default_path()))


def _default_path() -> Path:
    """Return the path of the ledger of this user, if none is configured."""
    state_home = os.environ.get("XDG_STATE_HOME", "")
    return engine.default_path(state_home, root=os.geteuid() == 0)


def fresh_rehearsal(url: URL) -> URL:
    """Return an empty ledger for a rehearsal, next to the real one."""
    if not engine.is_file(url):
        message = "--rehearse needs a ledger in a file"
        raise UsageError(message, hint="give --ledger PATH for the rehearsal")
    for suffix in ("", "-wal", "-shm", "-journal"):
        remove_private(Path(f"{url.database}.rehearsal{suffix}"))
    return url.set(database=f"{url.database}.rehearsal")


def quarantine_folder(url: URL) -> Path:
    """Return the folder for copies of messages that end without being delivered.

    Each ledger has its own folder, because it removes only its own copies.
    """
    if engine.is_file(url):
        return Path(f"{url.database}.quarantine")
    name = f"{url.get_backend_name()} {url.host} {url.port} {url.database}"
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return _default_path().parent / f"quarantine-{digest}"


def kept_folder(url: URL) -> Path:
    """Return the folder for copies of delivered mail, one for each ledger."""
    folder = quarantine_folder(url)
    return folder.with_name(folder.name.replace("quarantine", "kept"))


def ledger_name(url: URL) -> str:
    """Return a ledger's URL for the error messages of others: absolute, no secrets."""
    if engine.is_file(url):
        return os.path.realpath(str(url.database))
    return url.set(password=None, query={}).render_as_string(hide_password=True)


def same_options(config: Config, ledger: URL, *, primary: bool = False) -> str:
    """Return the options by which another command has the same ledger, or primary.

    The address of a ledger in a server database may contain a password: then only the
    configuration file names it.
    """
    options = ""
    if config.file is not None:
        options += f" --config {shlex.quote(str(config.file.absolute()))}"
    elif primary:
        host, port = config.primary.host, config.primary.port
        name = f"[{host}]" if ":" in host else host
        options += f" --to {shlex.quote(f'{name}:{port}')}"
    if engine.is_file(ledger):
        path = Path(str(ledger.database)).absolute()
        options += f" --ledger {shlex.quote(str(path))}"
    return options


def marker_folders(url: URL) -> tuple[Path, ...]:
    """Return the folders for markers of sources that cannot be written to.

    Root and the service's user share the first one; all ledgers of a user share the
    second. The last one is this ledger's own, for hosts that allow nothing else.
    """
    state_home = os.environ.get("XDG_STATE_HOME", "")
    own = engine.default_path(state_home, root=False)
    shared = engine.default_path("", root=True)
    homes = (shared.parent, own.parent, lock_folder(url))
    return tuple(dict.fromkeys(home / "sources" for home in homes))


def lock_folder(url: URL) -> Path:
    """Return the folder of the lock files of ledger owners."""
    if engine.is_file(url):
        return Path(f"{url.database}.locks")
    return _default_path().parent / "locks"
