"""Whose mail is sent: ``[primary] domains``."""

import pytest

from drainer.policy.admit import Admission


@pytest.mark.parametrize(
    ("domains", "address", "foreign"),
    [
        pytest.param((), "a@example.net", False, id="no list means all"),
        pytest.param(("example.org",), "a@Example.ORG", False, id="in any case"),
        pytest.param(("example.org",), "a@sub.example.org", True, id="not below it"),
        pytest.param((".example.org",), "a@sub.example.org", False, id="below it"),
        pytest.param((".example.org",), "a@b.c.example.org", False, id="far below it"),
        pytest.param((".example.org",), "a@example.org", True, id="only below it"),
        pytest.param((".example.org",), "a@notexample.org", True, id="whole labels"),
        pytest.param((".example.org",), "", False, id="no address"),
        pytest.param(("example.org",), "a@[192.0.2.1]", True, id="a literal"),
    ],
)
def test_a_domain_is_named_or_lies_below_one_with_a_dot(
    *, domains: tuple[str, ...], address: str, foreign: bool
) -> None:
    """As ``relay_domains`` of Postfix has it."""
    assert Admission(domains=frozenset(domains)).foreign(address) is foreign
