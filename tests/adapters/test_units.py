"""Times and sizes as people write them, both ways."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds01d.model.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("30m", 1800),
        ("48h", 172_800),
        ("7d", 604_800),
        ("1h30m", 5400),
        ("1d2h3m4s", 93_784),
        ("0.5h", 1800),
        (" 2H ", 7200),
        ("0", 0),
        ("0s", 0),
    ],
)
def test_a_duration_is_read_as_it_is_written(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("30", "`30` has no unit: write `30h`"),
        ("-5m", "is negative"),
        ("", "is no duration"),
        ("soon", "is no duration"),
        ("30m1h", "is no duration"),
        ("1h1h", "is no duration"),
        ("1 h", "is no duration"),
        ("5w", "is no duration"),
        ("٣h", "is no duration"),
        ("99999d", "more than a hundred years"),
    ],
)
def test_what_is_no_duration_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_duration(text, "h")


@given(st.integers(min_value=0, max_value=10_000_000))
def test_a_duration_that_was_written_by_us_is_read_back_the_same(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("32g", 32 << 30), ("512M", 512 << 20), ("1.5T", 3 << 39), ("40GiB", 40 << 30), ("40 GB", 40 << 30), ("1k", 1024)],
)
def test_a_size_is_read_as_it_is_written(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("32", "`32` has no unit: write `32g` or `32M`"),
        ("-1g", "is negative"),
        ("0g", "is no size that"),
        ("9999999t", "is no size that"),
        ("", "is no size: "),
        ("g", "is no size: "),
        ("1g1m", "is no size: "),
        ("inf", "is no size: "),
    ],
)
def test_what_is_no_size_is_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"), [(32 << 30, "32g"), (512 << 20, "512m"), (3 << 39, "1.5t"), (1000, "1000b"), (1536, "1.5k")]
)
def test_a_size_is_shown_in_its_largest_unit(size: int, text: str) -> None:
    assert format_size(size) == text
