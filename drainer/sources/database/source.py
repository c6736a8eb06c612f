"""``sqlite:``, ``postgresql:``, ``mysql:``, ``mariadb:``: mail in a database.

This module has only the options, so that a drain of another kind of spool does not load
the database code (drainer.sources.database.queue).
"""

from typing import Any

from drainer.sources.protocol import Source, SourceFormat, SourceOption

ACK = ("mark", "delete", "statement", "keep")
RECIPIENTS = ("one", "delimited", "json", "array", "table")


def _make(url: str, **options: Any) -> Source:  # noqa: ANN401 - texts and lists
    from drainer.sources.database.mapping import mapping_of  # noqa: PLC0415
    from drainer.sources.database.queue import DatabaseSettings, DatabaseSource  # noqa: PLC0415

    settings = DatabaseSettings(
        url=url,
        acknowledge=options.pop("ack", "mark"),
        password_file=options.pop("password_file", ""),
        lease=options.pop("lease", "2m"),
        leases=options.pop("leases", ""),
    )
    return DatabaseSource(settings, mapping_of(options))


def _texts(*names: str) -> dict[str, SourceOption]:
    return {name: SourceOption(name) for name in names}


FORMAT = SourceFormat(
    make=_make,
    marks=(),
    options={
        "ack": SourceOption("ack", ACK),
        "leases": SourceOption("leases", ("table", "off")),
        "recipients_format": SourceOption("recipients_format", RECIPIENTS),
        "pending": SourceOption("pending", is_list=True),
        "recipients_pending": SourceOption("recipients_pending", is_list=True),
        **_texts(
            "password_file", "lease", "table", "query", "id", "reverse_path",
            "recipients", "recipients_delimiter", "recipients_table",
            "recipients_message", "recipients_state", "recipients_finish", "content",
            "content_charset", "arrived", "client_address", "client_name", "helo",
            "login", "state", "claim", "finish", "fail", "statement",
        ),
    },
    takes_url=True,
)  # fmt: skip
