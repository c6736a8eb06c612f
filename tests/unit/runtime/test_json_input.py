"""JSON from strangers."""

import json

import pytest

from drainer.runtime.json_input import MAX_DEPTH, parse_json


@pytest.mark.parametrize("opening", ["[", '{"a":', '["[",', '["\\"",'])
def test_too_deep_is_refused_before_it_is_decoded(opening: str) -> None:
    """A decoder never comes near the limit of recursion."""
    with pytest.raises(ValueError, match="nested more than 64 deep"):
        parse_json(opening * 100_000)
    with pytest.raises(ValueError, match="nested more than 64 deep"):
        parse_json(opening.encode() * (MAX_DEPTH + 1))


def test_brackets_in_text_and_side_by_side_are_no_nesting() -> None:
    """What is only long, or text, is decoded."""
    value = {"a": ["[{" * 100, '"[', "\\"] * 50, "b": [[]] * 1000}
    assert parse_json(json.dumps(value)) == value
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(parse_json(deep.encode())) == deep


def test_utf_8_may_have_a_mark_and_nothing_else_is_decoded() -> None:
    """UTF-16, in which no bracket is where it seems to be, is refused."""
    assert parse_json(b'\xef\xbb\xbf"x"') == "x"
    for data in ('"x"'.encode("utf-16"), b'"\xff"', b"", b'["'):
        with pytest.raises(ValueError, match=r"decode|Expecting|Unterminated"):
            parse_json(data)
