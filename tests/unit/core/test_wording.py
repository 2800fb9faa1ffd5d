"""Numbers with their nouns, and times in the unit that fits."""

import pytest

from moderay.core.wording import counted, duration, selected


def test_a_count_has_the_noun_that_goes_with_it() -> None:
    texts = [counted(count, "shard") for count in (0, 1, 2, 2000)]
    assert texts == ["0 shards", "1 shard", "2 shards", "2,000 shards"]
    assert [counted(count, "policy", "policies") for count in (1, 3)] == ["1 policy", "3 policies"]
    assert selected(113, 300) == "113 of 300 rows selected"
    assert selected(0, 1) == "0 of 1 row selected"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (3.66, "3.7 s"),
        (48.2, "48 s"),
        (119, "119 s"),
        (3240, "54 min"),
        (7200, "2.0 h"),
        (36_000_000, "10,000.0 h"),
    ],
)
def test_a_time_is_a_number_of_a_few_digits(seconds: float, text: str) -> None:
    assert duration(seconds) == text
