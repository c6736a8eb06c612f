"""The ways of a notification: a program, mail, and the services that Apprise knows.

Each way is tried three times, for a limited time. A failure is a warning, and nothing
waits for it.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

import tenacity
from msgspec import json, to_builtins

from drainer.bounce.build import hostname_of, make_via
from drainer.config import Config
from drainer.config.host import split_host
from drainer.errors import DrainerError
from drainer.mail.reply import is_success, printable
from drainer.policy.watch.notices import Notice
from drainer.runtime.process import clean_environment
from drainer.runtime.redaction import redact
from drainer.smtp.post import submit
from drainer.smtp.route import Route
from drainer.watch.digest import mail_of

TRIES: Final = 3
PATIENCE: Final = 30.0
"""Seconds for one try."""
MAX_WORDS: Final = 200
"""Characters of what a program prints about its failure."""
_APPRISE = "import sys; from apprise.cli import main; sys.exit(main())"

_log = logging.getLogger(__name__)
Channel = Callable[[Notice, datetime], Awaitable[None]]


class NotifyError(Exception):
    """A way did not take the notification."""


def make_channels(config: Config) -> dict[str, Channel]:
    """Return the ways that ``[notify]`` names, each by its name for people."""
    section = config.notify
    found: dict[str, Channel] = {}
    if section.command:
        found[section.command[0]] = lambda notice, at: run_program(
            section.command, _json(notice, at)
        )
    if section.mail:
        found[f"mail to {section.mail}"] = lambda notice, at: _mail(config, notice, at)
    if section.urls_file:
        found[section.urls_file] = lambda notice, at: _call_services(
            Path(section.urls_file), notice, at
        )
    return found


async def send(name: str, channel: Channel, notice: Notice, at: datetime) -> bool:
    """Send a notification one way; return whether that worked. Never raises."""
    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type((NotifyError, OSError, TimeoutError)),
        stop=tenacity.stop_after_attempt(TRIES),
        wait=tenacity.wait_exponential(min=1, max=10),
        reraise=True,
    )

    async def attempt() -> None:
        async with asyncio.timeout(PATIENCE):
            await channel(notice, at)

    try:
        await retrying(attempt)
    except (NotifyError, OSError, TimeoutError, DrainerError) as error:
        words = printable(redact(str(error) or "it takes too long"), MAX_WORDS)
        _log.warning(f"the notification `{notice.event}` by {name} failed: {words}")
        return False
    return True


async def run_program(arguments: tuple[str, ...], content: bytes) -> None:
    """Run a program with this standard input; NotifyError unless it exits with 0.

    It has files and no pipes: a child of its own could keep a pipe open. When this is
    cancelled, it and its children are killed.
    """
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(content)
        given.seek(0)
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=given,
            stdout=said,
            stderr=said,
            env=clean_environment(),
            start_new_session=True,
        )
        try:
            status = await process.wait()
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            raise
        if status:
            said.seek(0)
            words = said.read(MAX_WORDS).decode("utf-8", "replace").strip()
            raise NotifyError(f"exit status {status}: {words}")


def _json(notice: Notice, at: datetime) -> bytes:
    """Return what a program reads: one JSON object on one line."""
    known = to_builtins(notice)
    del known["key"]
    facts = {
        **known,
        "host": socket.gethostname(),
        "at": at.isoformat(timespec="seconds"),
    }
    return json.encode(facts) + b"\n"


def text_of(notice: Notice) -> str:
    """Return a notification in words, with lines ending in LF."""
    return "".join(f"{printable(line)}\n" for line in _lines(notice))


def _lines(notice: Notice) -> Iterator[str]:
    yield f"{notice.subject[:1].upper()}{notice.subject[1:]}."
    if notice.cause:
        yield f"{notice.cause[:1].upper()}{notice.cause[1:]}."
    if notice.numbers:
        yield ""
        yield from (f"{name}: {value}" for name, value in notice.numbers.items())
    if notice.command:
        yield ""
        yield f"Run: {notice.command}"


async def _mail(config: Config, notice: Notice, at: datetime) -> None:
    address, own = config.notify.mail, hostname_of(config)
    content = mail_of(text_of(notice), address, own, at, printable(notice.subject, 150))
    answer = await submit(_relay(config), address, content)
    if not is_success(answer):
        raise NotifyError(str(answer))


def _relay(config: Config) -> Route:
    """Return the server that takes the mail; UsageError if none is named."""
    if not config.notify.via:
        return make_via(config)
    host, port = split_host(config.notify.via)
    return Route(host=host, port=port or 25, helo=hostname_of(config))


async def _call_services(urls: Path, notice: Notice, at: datetime) -> None:
    """Call Apprise in a process of its own: what it does cannot be limited otherwise.

    The URLs hold tokens, so that it reads them from their file.
    """
    del at
    title = f"drainer on {socket.gethostname()}: {printable(notice.subject, 150)}"
    options = ("--config", os.fspath(urls), "--title", title, "--input-format", "text")
    arguments = (sys.executable, "-c", _APPRISE, *options)
    await run_program(arguments, text_of(notice).encode())
