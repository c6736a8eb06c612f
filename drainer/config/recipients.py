"""Which recipients exist, as the operator's lists have them."""

from datetime import timedelta

from pydantic import Field, field_validator

from drainer.config.section import Duration, Section


class ListSection(Section):
    """A list of recipients, with what its kind needs (sources.recipients)."""

    url: str
    query: str = ""
    base: str = ""
    filter: str = ""
    attributes: tuple[str, ...] = ()
    bind_dn: str = ""
    password_file: str = ""


class RecipientsSection(Section):
    """Lists of the recipients that exist (docs/census.md)."""

    lists: tuple[str | ListSection, ...] = Field(
        (),
        description="Files with an address or @domain a line; `drainer census` and"
        " `drainer drain` use them. docs/census.md has the other kinds.",
    )
    max_age: Duration = Field(
        timedelta(days=30),
        description="A list that was changed longer ago says nothing.",
    )
    callout: bool = Field(
        default=False,
        description="Ask the primary for recipients of which no list says anything:"
        " RCPT, and no message.",
    )
    before_drain: bool = Field(
        default=True,
        description="Hold recipients that the lists do not know, and stop if the"
        " primary refuses those that they do. It needs lists, or callout.",
    )

    @field_validator("lists")
    @classmethod
    def _are_named(
        cls, values: tuple[str | ListSection, ...]
    ) -> tuple[str | ListSection, ...]:
        names = [each if isinstance(each, str) else each.url for each in values]
        if not all(name.strip() for name in names):
            raise ValueError("an entry is empty; name a file")
        return values
