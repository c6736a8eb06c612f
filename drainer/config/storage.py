"""Where things are: the ledger, the sources."""

from pydantic import BaseModel, ConfigDict, Field

from drainer.config.section import Section


class LedgerSection(Section):
    """Where drainer keeps its ledger."""

    url: str = Field("", description="Path or database URL. Empty = the default place.")


class SourceSection(BaseModel):
    """A named source: its URL, and options of its format."""

    model_config = ConfigDict(extra="allow", frozen=True)

    url: str = Field(description="Source URL, as on the command line.")
