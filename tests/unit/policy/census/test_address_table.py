"""What a list says about recipients."""

import pytest

from drainer.policy.census.address_table import AddressTable, add_lines
from drainer.policy.census.existence import (
    CATCH_ALL,
    LISTED,
    NO_ENTRIES,
    NOT_LISTED,
    POSTMASTER,
    TOO_OLD,
    UNLISTED,
    Existence,
    ExistenceAnswer,
    combine,
)

KNOWN, UNKNOWN = Existence.KNOWN, Existence.UNKNOWN
OLD = ExistenceAnswer(Existence.CANNOT_TELL, TOO_OLD)


def table(text: str, delimiters: str = "+") -> AddressTable:
    """Return the table that the lines of a list make."""
    made = AddressTable("list", delimiters)
    add_lines(made, text.splitlines(keepends=True))
    return made


@pytest.mark.parametrize(
    ("mailbox", "existence", "reason"),
    [
        ("bob@example.org", KNOWN, LISTED),
        ("BOB@Example.ORG.", KNOWN, LISTED),
        ('"bob"@example.org', KNOWN, LISTED),
        ("bob+tag@example.org", KNOWN, LISTED),
        ("bob-tag@example.org", UNKNOWN, NOT_LISTED),
        ("ann+lists@example.org", KNOWN, LISTED),
        ("ann@example.org", UNKNOWN, NOT_LISTED),
        ("bobby@example.org", UNKNOWN, NOT_LISTED),
        ("any@all.example", KNOWN, CATCH_ALL),
        ("postmaster@all.example", KNOWN, CATCH_ALL),
        ("any@sub.all.example", Existence.CANNOT_TELL, NO_ENTRIES),
        ("PostMaster@example.org", Existence.CANNOT_TELL, POSTMASTER),
        ("postmaster", Existence.CANNOT_TELL, NO_ENTRIES),
        ("eva@b\u00fccher.example", KNOWN, LISTED),
        ("eva@XN--BCHER-KVA.example", KNOWN, LISTED),
        ("x@other.example", Existence.CANNOT_TELL, NO_ENTRIES),
    ],
)
def test_a_recipient_is_found_in_every_spelling(
    mailbox: str, existence: Existence, reason: str
) -> None:
    """A tag leads to its user, and the domain decides whether the list answers."""
    text = (
        "bob@example.org\n<ann+lists@example.org>\n@All.example\n"
        "eva@xn--bcher-kva.example\n"
    )
    assert table(text).find(mailbox)[:2] == (existence, reason)


def test_delimiters_may_be_others_or_none() -> None:
    """As recipient_delimiter of the primary."""
    assert table("bob@x.example", "-").find("bob-a@x.example").existence is KNOWN
    assert table("bob@x.example", "").find("bob+a@x.example").existence is UNKNOWN


def test_the_source_of_a_map_is_a_list_of_its_keys() -> None:
    """Values and their further lines are no recipients; refused keys are left out."""
    found = table(
        "# comment\n\nbob@example.org\tx\n  more@example.org\nann@example.org: bob,\n"
        "spam@example.org  REJECT no\ngone@example.org 550 5.1.1 unknown\n"
        "left@example.org error:5.1.6 moved\nok@example.org OK\n"
        '"two words"@example.org x\n*@all.example any\n'
    )
    known = [
        local
        for local in (
            "bob", "more", "ann", "spam", "gone", "left", "ok", '"two words"',
        )
        if found.find(f"{local}@example.org").existence is KNOWN
    ]  # fmt: skip
    assert known == ["bob", "ann", "ok", '"two words"']
    assert found.find("x@all.example").existence is KNOWN


def test_indented_addresses_without_values_are_addresses() -> None:
    """A list that a person has indented is no map."""
    found = table("a@example.org\n  b@example.org\n")
    assert found.find("b@example.org").existence is KNOWN


def test_what_is_no_address_is_counted() -> None:
    """It makes no entry."""
    made = AddressTable("list")
    lines = ["/^user.*$/ OK\n", "localuser\n", "@\n", "a b@x\n", "a@b@\n"]
    assert add_lines(made, lines) == len(lines)
    assert len(made) == 0


@pytest.mark.parametrize(
    ("line", "ignored"),
    [
        ("bob@example.org,Bob,42", 1),
        ("Bob Smith <bob@example.org>", 1),
        ("/^bob@example\\.org$/ OK", 1),
        ("bob bob@example.org", 0),
        ("example.org anything", 0),
        ("spam@example.org,x REJECT", 0),
    ],
)
def test_what_looks_like_an_address_is_named(line: str, ignored: int) -> None:
    """Its recipient would count as unknown; a key without a domain is another map's."""
    made = table(f"ann@example.org\n{line}\n")
    assert made.ignored == ignored
    assert made.first_ignored == (line.removesuffix(" OK") if ignored else "")


def test_several_lists_agree_on_one_answer() -> None:
    """One that knows it is enough; one that is too old keeps it from being unknown."""
    known = ExistenceAnswer(KNOWN, LISTED, "a")
    unknown = ExistenceAnswer(UNKNOWN, NOT_LISTED, "b")
    assert combine([unknown, known]) == known
    assert combine([unknown, UNLISTED]) == unknown
    assert combine([unknown, OLD]) == OLD
    assert combine([OLD, known]) == known
    assert combine([]) == UNLISTED
