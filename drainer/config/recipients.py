"""Which recipients exist, as the operator's lists have them."""

from datetime import timedelta

from pydantic import Field, field_validator

from drainer.config.section import Duration, Section


class RecipientsSection(Section):
    """Lists of the recipients that exist (docs/census.md)."""

    lists: tuple[str, ...] = Field(
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
    def _are_named(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if not all(value.strip() for value in values):
            message = "an entry is empty; name a file"
            raise ValueError(message)
        return values
