"""Earlier verdicts, read along."""

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st
from support.outputs import compared
from support.project import ROOT

from moderay.config.policy import load_policy
from moderay.core.verdicts import Status, Verdict, label_fields, verdict_array
from moderay.corpus.content import content_hash
from moderay.labels.decisions import decide
from moderay.labels.earlier_outputs import LabelFile
from moderay.labels.layout import Layout
from moderay.labels.reuse import ReadAlong

texts = st.integers(0, 8).map(str)


@given(
    there=st.lists(
        st.tuples(texts, st.sampled_from([Status.OK, Status.TIMEOUT, Status.EMPTY])), max_size=40
    ),
    request=st.lists(texts, max_size=20),
)
def test_a_content_is_found_where_it_was_judged_and_nowhere_else(
    tmp_path_factory, there, request
) -> None:  # type: ignore[no-untyped-def]
    folder, policy = tmp_path_factory.mktemp("labels"), load_policy(ROOT / "policies/spam")
    verdicts = [
        Verdict(
            status,
            [0.2, 0.3, 0.5] if status is Status.OK else None,
            rationale=text,
            answer="SP4",
            decided_by="reason",
            windows=1,
        )
        for text, status in there
    ]
    decided = decide(verdict_array(verdicts, 3), policy.rule)
    hashes = [
        content_hash([text]) if status is not Status.EMPTY else None for text, status in there
    ]
    columns = [
        pa.array(range(len(there)), pa.int64()),
        pa.array(hashes, pa.string()),
        decided.field("violates"),
        decided,
    ]
    table = pa.Table.from_arrays(columns, schema=pa.schema(label_fields([policy.rule])))
    pq.write_table(table, folder / "a.parquet", row_group_size=7)

    earlier = ReadAlong(
        [Layout(str(folder))], [LabelFile(0, "a.parquet", {"spam": {"reason": None}})], ["spam"]
    )
    actual = earlier.find([content_hash([text]) for text in request])["spam"].to_pylist()
    judged = {text for text, status in there if status is Status.OK}
    assert [None if v is None else v["rationale"] for v in actual] == [
        text if text in judged else None for text in request
    ]
    assert all(
        v is None or (v["origin"] == "reused" and v["run"] == 3 and v["answer"] == "SP4")
        for v in actual
    )
    assert compared(table, "spam") is not None
