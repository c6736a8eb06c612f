"""`notify`: send a test notification every way that is configured."""

import asyncio
from typing import Annotated

import typer

from drainer.cli.options import ConfigOption, JsonOption, load
from drainer.cli.output import clean, print_json, stdout
from drainer.config import Config
from drainer.errors import UsageError
from drainer.policy.watch.notices import Notice
from drainer.runtime.process import utcnow
from drainer.watch.notify.channels import make_channels, send

_TEST = Notice(
    event="test",
    subject="this is a test",
    cause="an operator ran `drainer notify --test`",
    command="drainer status",
    numbers={"delivered": 0, "remaining": 0},
)


def notify(
    path: ConfigOption = None,
    *,
    test: Annotated[
        bool, typer.Option("--test", help="Send a test notification every way.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Test the notifications that are configured.

    A running drain or watch sends them by itself when delivery stops or resumes, when a
    drain is over, when nothing moves, when mail is about to expire, for a defect, for a
    full disk, and when a watch ends.

    Exit status: 1 a way failed.

    Example: drainer notify --test
    """
    config = load(path)
    if not test:
        message = "notify needs --test: drains and watches send the others"
        raise UsageError(message, hint="drainer notify --test")
    if not config.notify.is_on:
        message = "no notifications are configured"
        raise UsageError(message, hint="set command, mail or urls_file in [notify]")
    results = asyncio.run(_send_all(config))
    for name, is_sent in results.items():
        if json_:
            print_json({"way": name, "sent": is_sent})
        else:
            stdout().print(f"{clean(name)}: {'sent' if is_sent else 'failed'}")
    raise typer.Exit(0 if all(results.values()) else 1)


async def _send_all(config: Config) -> dict[str, bool]:
    """Send it every way at once; return whether each way worked, by its name."""
    ways = make_channels(config)
    tasks = (send(name, channel, _TEST, utcnow()) for name, channel in ways.items())
    return dict(zip(ways, await asyncio.gather(*tasks), strict=True))
