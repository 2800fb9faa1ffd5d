"""Views of strings are read, chosen and copied like any others."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moderay.corpus.views import plain_type, rows_at, without_views

VIEW = pa.string_view()
KINDS = {
    "plain": (VIEW, ["a", None, "c"]),
    "bytes": (pa.binary_view(), [b"a", None, b"c"]),
    "list": (pa.list_(VIEW), [["a"], None, []]),
    "large list": (pa.large_list(VIEW), [["a"], None, []]),
    "fixed list": (pa.list_(VIEW, 1), [["a"], None, ["c"]]),
    "struct": (pa.struct([("a", pa.list_(VIEW))]), [{"a": ["x"]}, None, {"a": None}]),
    "map": (pa.map_(pa.string(), VIEW), [[("k", "v")], None, []]),
    "other": (pa.int8(), [1, None, 3]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [[], [0], [0, 2], [1, 2], [0, 1, 2]])
def test_rows_of_views_are_those_of_plain_strings(kind: str, rows: list[int]) -> None:
    table = pa.table({"c": pa.array(KINDS[kind][1], KINDS[kind][0])})
    expected = [KINDS[kind][1][row] for row in rows]
    plain = without_views(table)
    assert "view" not in str(plain_type(KINDS[kind][0]))
    for chosen in (
        rows_at(table, np.array(rows, np.int64)),
        rows_at(plain, np.array(rows, np.int64)),
    ):
        assert chosen.column("c").to_pylist() == expected
    assert without_views(plain) is plain


def test_content_of_views_is_selected_and_sampled(job, tmp_path, cli) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "in").mkdir()
    values = pa.array([f"row {number}" for number in range(40)], VIEW)
    pq.write_table(
        pa.table({"text": values, "lang": pa.array(["en"] * 40, VIEW)}), tmp_path / "in/a.parquet"
    )
    section = {"path": "in", "content": "text", "where": "lang = 'en'", "sample": 0.5}
    result = cli("run", job(input=section), "--limit", "5")
    assert result.returncode == 0 and "5 rows judged" in result.stdout, result.stderr
