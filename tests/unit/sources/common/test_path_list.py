"""The addresses in a delivery field, with their parameters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainer.sources.common.path_list import paths_of


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a@b.org", ["a@b.org"]),
        ("<a@b.org>", ["a@b.org"]),
        ("<>", [""]),
        ("a@b.org, <c@d.org>,e@f.org", ["a@b.org", "c@d.org", "e@f.org"]),
        ('"a,b"@c.org, <"odd >>=name"@d.org>', ['"a,b"@c.org', '"odd >>=name"@d.org']),
        ('"a b"@c.org NOTIFY=NEVER', ['"a b"@c.org']),
        ('<"a> b"@c.org> RET=FULL', ['"a> b"@c.org']),
        ("<a@b.org> NOTIFY=SUCCESS,FAILURE, <c@d.org>", ["a@b.org", "c@d.org"]),
        ("a b@c.org", ["a b@c.org"]),
        ("a@b.org, c,d,e@f.org", ["a@b.org", "c,d,e@f.org"]),  # one that a server took
        ("a, b@c.org", ["a", "b@c.org"]),
        ("Name <a@b.org>", ["Name <a@b.org>"]),
        ("a@b.org (comment)", ["a@b.org (comment)"]),
        ("<@a.org,@b.org:c@d.org>, <e@f.org>", ["c@d.org", "e@f.org"]),
        ("<@a.org:>", [""]),
        ("<a@b.org", ["<a@b.org"]),
    ],
)
def test_addresses_are_separated_outside_of_quotes(
    value: str, expected: list[str]
) -> None:
    """With or without brackets; what is no parameter stays, and is refused later."""
    assert [each.text for each in paths_of(value)] == expected


def test_parameters_become_those_of_the_envelope() -> None:
    """Encoded as on the wire; an ORCPT without a type is that of a mailbox."""
    (path,) = paths_of(
        "<a@b.org> orcpt=a@b.org notify=Failure,DELAY BODY=7bit SMTPUTF8"
    )
    recipient = path.recipient()
    assert recipient.orcpt == "rfc822;a@b.org"
    assert recipient.notify == ("FAILURE", "DELAY")
    envelope = path.envelope("a@b.org")
    assert (envelope.body, envelope.smtputf8, envelope.ret) == ("7bit", True, "")
    (path,) = paths_of(
        "<a@b.org> NOTIFY=NEVER,SUCCESS ORCPT=x ENVID=+ RET=some BODY=BINARYMIME"
    )
    assert path.recipient().notify == ("NEVER",)
    assert path.envelope("").envid == path.envelope("").ret == ""
    assert path.envelope("").body == ""


@given(st.text(max_size=100) | st.text('<>",= \t\\\\aN', max_size=60))
def test_any_value_is_read(value: str) -> None:
    """An address that is none is marked in the documented way."""
    for each in paths_of(value):
        if each.recipient().fault:
            continue
        assert each.text
        assert each.envelope("").reverse_path == ""


@pytest.mark.timeout(20)
@pytest.mark.parametrize("unit", ["NOTIFY=A,", "<a,", '"', " a=b,", "a ,", "a,"])
def test_long_values_are_read_in_linear_time(unit: str) -> None:
    """Also those that look like one endless parameter."""
    list(paths_of("a@b.org " + unit * 50_000))
