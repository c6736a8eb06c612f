"""Recipients that get another address on the way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.mail.envelope import AddressError, Recipient
from drainer.mail.message import Problem
from drainer.policy.admission.admit import Admission
from drainer.policy.admission.routes import single_route
from drainer.policy.recipient.delivery import (
    ClaimedRecipient,
    assign_twins,
    parts,
    redirect_all,
)
from drainer.policy.recipient.mapping import AddressMapping, parse_redirects

LINES = [
    "old@x.example=new@y.example",
    "@x.example=@z.example",
    "# a comment",
    "",
    "left@x.example   right@x.example",
    "right@x.example = left@x.example",
    "@all.example=one@y.example",
    "list+u=dom@x.example=new@y.example",
    "@xn--bcher-kva.example=@z.example",
    "old@b\u00fccher.example=new@y.example",
]


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("old@x.example", "new@y.example"),
        ("OLD@X.Example.", "new@y.example"),
        ("any@x.example", "any@z.example"),
        ('"a b"@X.example', '"a b"@z.example'),
        ("left@x.example", "right@x.example"),
        ("right@x.example", "left@x.example"),
        ("somebody@all.example", "one@y.example"),
        ("list+u=dom@x.example", "new@y.example"),
        ("old@sub.x.example", "old@sub.x.example"),
        ("postmaster", "postmaster"),
        ("any@B\u00dcCHER.example", "any@z.example"),
        ("old@xn--bcher-kva.example", "new@y.example"),
    ],
)
def test_an_address_wins_over_its_domain_and_is_mapped_once(
    path: str, target: str
) -> None:
    """So that two addresses may change places, and nothing goes round."""
    assert parse_redirects(LINES).target(path) == target


@pytest.mark.parametrize(
    "line",
    [
        "old@x.example",
        "old@x.example=",
        "=new@y.example",
        "old@x.example=new",
        "old=new@y.example",
        "@=@y.example",
        "old@x.example=new@y.example=more@z.example",
        "old@x.example=new y@z.example",
        "old@x.example=new\x00@y.example",
        "a b c",
    ],
)
def test_what_is_no_pair_of_mailboxes_is_refused(line: str) -> None:
    """Nothing of it may reach the wire."""
    with pytest.raises(ValueError, match="cannot map"):
        parse_redirects([line])


def test_one_address_has_one_target() -> None:
    """Said twice alike is no contradiction."""
    parse_redirects(["a@x=b@y", "A@X=b@y"])
    with pytest.raises(ValueError, match="mapped twice"):
        parse_redirects(["a@x=b@y", "A@x=c@y"])


def test_a_mapped_recipient_keeps_its_first_address_for_reports() -> None:
    """RFC 3461 5.2.1: ORCPT as the client gave it, else the address it named."""
    redirect = parse_redirects(["old@x=new@y", "grün@x=new@y"])
    plain = redirect.applied(Recipient(forward_path="old@x", notify=("FAILURE",)))
    assert plain == Recipient(
        forward_path="new@y",
        orcpt="rfc822;old@x",
        notify=("FAILURE",),
        original="old@x",
    )
    given_one = redirect.applied(
        Recipient(forward_path="old@x", orcpt="rfc822;first@w")
    )
    assert given_one.orcpt == "rfc822;first@w"
    assert redirect.applied(Recipient(forward_path="grün@x")).orcpt == "utf-8;grün@x"
    other = Recipient(forward_path="other@x")
    assert redirect.applied(other) is other


def test_the_rules_are_for_the_address_that_is_sent_to() -> None:
    """Into the primary's domains, or out of them."""
    redirect = parse_redirects(["@foreign=@ours", "boss@ours=boss@foreign"])
    rules = Admission(routes=single_route("", ["ours"]), redirect=redirect)
    assert rules.objection(Recipient(forward_path="a@foreign")) is None
    assert rules.objection(Recipient(forward_path="a@ours")) is None
    found = rules.objection(Recipient(forward_path="boss@ours"))
    assert found == Problem(code="not-for-this-primary", detail="foreign")


def test_a_local_part_that_does_not_fit_is_a_bad_address() -> None:
    """Held by name; it never reaches the wire."""
    redirect = parse_redirects(["@x=@" + ".".join(["y" * 60] * 4)])
    path = "a" * 300 + "@x"
    with pytest.raises(AddressError):
        redirect.target(path)
    found = Admission(redirect=redirect).objection(Recipient(forward_path=path))
    assert found is not None
    assert found.code == "bad-address"
    claimed = (ClaimedRecipient(n=0, recipient=Recipient(forward_path=path)),)
    assert redirect_all(claimed, redirect) == claimed


def claims(*paths: str) -> tuple[ClaimedRecipient, ...]:
    """Return recipients, numbered."""
    return tuple(
        ClaimedRecipient(n=n, recipient=Recipient(forward_path=path))
        for n, path in enumerate(paths)
    )


def test_recipients_that_get_the_same_address_are_twins() -> None:
    """One RCPT serves them: the primary delivers once."""
    redirect = parse_redirects(["a@x=c@y", "b@x=c@y"])
    found = redirect_all(claims("a@x", "z@y", "b@x", "c@y"), redirect)
    assert [(c.n, c.recipient.forward_path, c.twin_of) for c in found] == [
        (0, "c@y", None),
        (2, "c@y", 0),
        (3, "c@y", 0),
        (1, "z@y", None),
    ]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 7))
def test_a_part_has_so_many_addresses_and_whole_families(
    numbers: list[int], size: int
) -> None:
    """Nobody is lost, nobody is asked twice, no twin is left behind."""
    redirect = AddressMapping(table={f"u{n}@x": f"v{number}@y" for n, number in
                               enumerate(numbers)})  # fmt: skip
    whole = redirect_all(claims(*(f"u{n}@x" for n in range(len(numbers)))), redirect)
    cut = list(parts(whole, size))
    assert tuple(each for part in cut for each in part) == whole
    for part in cut:
        addresses = {each.recipient.forward_path for each in part}
        assert len(addresses) <= size
        assert sum(each.twin_of is None for each in part) == len(addresses)


def test_a_twin_whose_first_is_taken_away_has_a_rcpt_of_its_own() -> None:
    """A breaker may part them: each is still asked for, once."""
    redirect = parse_redirects(["a@x=c@y", "b@x=c@y"])
    _, second, third, other = redirect_all(claims("a@x", "z@y", "b@x", "c@y"), redirect)
    found = assign_twins((second, third, other))
    assert [(c.n, c.twin_of) for c in found] == [(2, None), (3, 2), (1, None)]
    assert assign_twins((other,)) == (other,)


def test_nobody_is_cut_into_no_parts() -> None:
    """Not even into an empty one."""
    assert list(parts((), 5)) == []
