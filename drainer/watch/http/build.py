"""Build a server's settings from the [hook] section; its secrets are read here."""

import importlib.util
import logging
import socket
import stat
from collections.abc import Callable, Coroutine
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy.engine import URL

from drainer.config import Config
from drainer.errors import UsageError
from drainer.policy.pacing.rate import Rate, parse_rate
from drainer.runtime.private_files import read_private
from drainer.watch.http.auth import HINT, HookKeys, secret_of
from drainer.watch.http.settings import HookSettings
from drainer.watch.http.snapshot import WatchView
from drainer.watch.http.socket_activation import HANDED, take_socket

_log = logging.getLogger(__name__)

_EXTRA = ("prometheus_client", "starlette", "uvicorn")
_LEAST_BURST = 20
"""Requests: a page and its files are several at once."""
_BURST_SECONDS = 10


def make_hook(
    config: Config, handed: socket.socket | None = None
) -> HookSettings | None:
    """Return the settings of the HTTP server; None if it is not wanted.

    A socket from the service manager decides where it listens. Raises UsageError
    without the packages it needs, for a secret that is unreadable or that every user
    can read, and beyond loopback without a secret.
    """
    hook = config.hook
    if not hook.listen:
        return None
    if missing := [name for name in _EXTRA if importlib.util.find_spec(name) is None]:
        message = f"[hook] listen needs packages that are absent: {', '.join(missing)}"
        raise UsageError(message, hint="install drainer[hook]")
    host, port = handed.getsockname()[:2] if handed else _place(hook.listen)
    return HookSettings(
        host=host,
        port=port,
        names=frozenset(hook.names),
        keys=HookKeys(
            token=_secret("token", hook.token_file, hook.token),
            operator=_secret(
                "operator_token", hook.operator_token_file, hook.operator_token
            ),
            hmac=_secret("hmac", hook.hmac_file, hook.hmac),
        ),
        tls=(Path(hook.tls_cert), Path(hook.tls_key)) if hook.tls_cert else None,
        rate=_rate(hook.rate),
        lifetime=config.retry.lifetime,
    )


def make_server(
    config: Config,
    url: URL,
    route: str,
) -> Callable[[WatchView], Coroutine[None, None, None]] | None:
    """Return what serves a watch of this route; None if no server is wanted.

    It listens already, so a port that is in use is known before the watch starts.
    Raises UsageError like ``make_hook``, and if it cannot listen.
    """
    handed = take_socket() if config.hook.listen == HANDED else None
    settings = make_hook(config, handed)
    if settings is None:
        return None
    from drainer.watch.http import server  # noqa: PLC0415 - an extra, and slow to import

    listener = server.listen(settings, handed)
    scheme = "https" if settings.tls else "http"
    host, port = listener.getsockname()[:2]
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    _log.info(f"the hook listens on {scheme}://{place}/")
    for caution in settings.cautions:
        _log.warning(caution)

    return lambda watched: server.serve(settings, watched, url, route, listener)


def _place(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return "127.0.0.1" if host == "localhost" else host.strip("[]"), int(port)


def _rate(text: str) -> Rate:
    per_second = parse_rate(text) or 1.0
    burst = max(_LEAST_BURST, per_second * _BURST_SECONDS)
    return Rate(per_second=per_second, burst=burst)


def _secret(key: str, file: str, given: SecretStr) -> str:
    """Return a secret of the configuration; '' if there is none."""
    if not file:
        text = given.get_secret_value()
        return secret_of(text, f"[hook] {key}") if text else ""
    where = f"[hook] {key}_file {file}"
    try:
        path = Path(file)
        mode = path.stat().st_mode
        text = read_private(path).decode().partition("\n")[0]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{where}: cannot be read: {error}", hint=HINT) from None
    if mode & stat.S_IRWXO:
        message = f"{where}: every user of this host can read or write it"
        raise UsageError(message, hint=f"chmod 600 {file}")
    return secret_of(text, where)
