"""The whole flow on real Ray and real files, with the scripted engine; the state on storage."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.corpora import as_lines
from support.outputs import compared, labels, manifest_of, plain, verdicts_of
from support.project import ROOT, kill_all
from support.scripted import SCRIPT

from moderay import run
from moderay.labels.records import LeaseRecord


def snapshot(folder: Path) -> dict[str, int]:
    return {str(f): f.stat().st_mtime_ns for f in folder.rglob("*") if f.is_file()}


def test_every_row_comes_out_once_in_order_beside_its_unchanged_columns(
    job, corpus: Path, tmp_path: Path
) -> None:
    outcome = run(job())
    actual = labels(tmp_path / "out")
    assert outcome.exit_status == 0 and list(actual) == [
        "a.parquet",
        "b.parquet",
        "day=2/c.parquet",
    ]
    for name, table in actual.items():
        source = pq.read_table(corpus / name, partitioning=None)
        assert table.select(source.column_names).equals(source)
        assert table.column("row").to_pylist() == list(range(35))
        statuses = [verdict["status"] for verdict in verdicts_of(table, "spam")]
        assert statuses == ["empty" if i % 6 > 3 else "ok" for i in range(35)]
        assert table.column("flagged").to_pylist() == [
            None if i % 6 > 3 else i % 6 in (1, 2) for i in range(35)
        ]
    manifest = manifest_of(tmp_path / "out")
    assert manifest["complete"] and manifest["rows"] == 105 and manifest["input_rows"] == 105
    assert manifest["counts"]["spam"]["ok"] + manifest["counts"]["spam"]["empty"] == 105
    assert not list((tmp_path / "out/_moderay/units").rglob("*.arrow"))


def test_probabilities_come_from_the_label_tokens_and_labels_from_the_side(
    job, corpus: Path, tmp_path: Path
) -> None:
    run(job())
    verdicts = verdicts_of(labels(tmp_path / "out")["a.parquet"], "spam")
    assert [round(p, 3) for p in verdicts[1]["scores"].values()] == [0.1, 0.1, 0.8]
    assert round(verdicts[1]["probability"], 3) == 0.9 and verdicts[1]["label"] == "SP4"
    assert [round(p, 3) for p in verdicts[2]["scores"].values()] == [0.2, 0.6, 0.2]
    assert (
        verdicts[0]["label"] == "SP0"
        and verdicts[0]["violates"] is False
        and verdicts[0]["rationale"] == "Nothing."
    )


@pytest.mark.slow
def test_rationales_of_flagged_rows_alone_and_a_lowered_threshold_says_which_are_not_there(
    job, corpus: Path, tmp_path: Path, cli
) -> None:
    sampling = {"source": "scripted:script.yaml", "sampling": {"temperature": 0}}
    run(job(model=sampling, output={"path": "all"}))
    run(job({**SCRIPT, "notes": True}, model=sampling, output={"path": "with"}))
    run(job(model=sampling, output={"path": "out", "rationale": "flagged"}))
    ways = [manifest_of(tmp_path / out)["runs"][-1]["probability_by"] for out in ("with", "out")]
    assert ways == [["with the answer"], ["by a second request, before any rationale"]]
    everywhere, flagged = labels(tmp_path / "all"), labels(tmp_path / "out")
    for name in everywhere:
        old, new = verdicts_of(everywhere[name], "spam"), verdicts_of(flagged[name], "spam")
        for a, b in zip(old, new, strict=True):
            assert b["rationale"] == (a["rationale"] if a["violates"] else None)
            same = ("status", "violates", "label", "probability", "scores", "reasoning", "answer")
            assert [a[n] for n in same] == [b[n] for n in same]
    policy = tmp_path / "stricter"
    policy.mkdir()
    text = (ROOT / "policies/spam/policy.md").read_text()
    (policy / "policy.md").write_text(text.replace("threshold: 0.5", "threshold: 0.05"))
    kept = {"path": "out", "rationale": "flagged"}
    result = cli("run", job(model=sampling, output=kept, policies=[str(policy)]))
    safe = sum(
        verdict["violates"] is False
        for table in flagged.values()
        for verdict in verdicts_of(table, "spam")
    )
    assert result.returncode == 0, result.stderr
    assert f"spam: {safe} flagged rows without a rationale" in result.stderr
    assert "output.rationale_from: 0.05" in result.stderr


def test_finished_job_writes_nothing_and_a_threshold_decides_again_in_place(
    job, corpus: Path, tmp_path: Path, cli
) -> None:
    file = job()
    run(file)
    before, files = labels(tmp_path / "out"), snapshot(tmp_path / "out")
    result = cli("run", file)
    assert result.returncode == 0 and "nothing to do: 3 shards with 105 rows" in result.stdout
    assert snapshot(tmp_path / "out") == files

    policy = tmp_path / "strict"
    policy.mkdir()
    text = (ROOT / "policies/spam/policy.md").read_text()
    (policy / "policy.md").write_text(text.replace("threshold: 0.5", "threshold: 0.85"))
    run(job(policies=[str(policy)]))
    after = labels(tmp_path / "out")
    for name in before:
        old, new = verdicts_of(before[name], "spam"), verdicts_of(after[name], "spam")
        for a, b in zip(old, new, strict=True):
            same = (
                "status",
                "probability",
                "scores",
                "rationale",
                "reasoning",
                "run",
                "prompt_tokens",
            )
            assert [a[n] for n in same] == [b[n] for n in same]
            assert b["violates"] is (None if a["probability"] is None else a["probability"] >= 0.85)
        assert new[2]["label"] == "SP0" and new[2]["answer"] == "SP2"
        assert (
            before[name]
            .drop_columns(["spam", "flagged"])
            .equals(after[name].drop_columns(["spam", "flagged"]))
        )


def test_rows_that_cannot_be_judged_say_why_and_leave_their_neighbours_alone(
    job, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    bad = pa.array(
        [b"\xff\xfe", b"visit my shop", b"failing", b"broken", b"hanging", b"long " * 400, b"a day"]
    )
    text = pa.StringArray.from_buffers(7, bad.buffers()[1], bad.buffers()[2])
    pq.write_table(pa.table({"text": text}), tmp_path / "in/a.parquet")
    pq.write_table(pa.table({"text": bad}), tmp_path / "in/b.parquet")
    outcome = run(
        job(
            windows={"tokens": 64, "overlap": 8, "max": 4},
            limits={"request_s": 3},
            output={"path": "out", "columns": []},
        )
    )
    assert outcome.exit_status == 0
    for table in labels(tmp_path / "out").values():
        verdicts = verdicts_of(table, "spam")
        assert [v["status"] for v in verdicts] == [
            "invalid",
            "ok",
            "engine_error",
            "ok",
            "timeout",
            "too_long",
            "ok",
        ]
        assert (
            verdicts[0]["detail"] == "invalid UTF-8 at byte 0"
            and verdicts[3]["forced"] is True
            and verdicts[3]["rationale"] is None
        )
        assert [v["violates"] for v in verdicts] == [None, True, None, True, None, None, False]


def test_conversations_templates_where_and_sample(job, tmp_path: Path) -> None:
    (tmp_path / "in/lang=en").mkdir(parents=True)
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "visit my shop"}]
    chats = pa.array(
        [turns, [], None, [{"role": None, "content": "x"}], turns[:1]],
        pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
    )
    pq.write_table(pa.table({"chat": chats}), tmp_path / "in/a.parquet")
    run(job(input={"path": "in/a.parquet", "content": "chat"}, output={"path": "chats"}))
    chat = verdicts_of(labels(tmp_path / "chats")["a.parquet"], "spam")
    assert [v["status"] for v in chat] == ["ok", "empty", "empty", "invalid", "ok"] and chat[0][
        "violates"
    ] is True

    rows = pa.table(
        {
            "title": [f"t{i}" for i in range(200)],
            "body": ["visit my shop" if i % 2 else "x" for i in range(200)],
            "n": range(200),
        }
    )
    pq.write_table(rows, tmp_path / "in/lang=en/b.parquet")
    part = {
        "path": "in/lang=*/*.parquet",
        "content": "{title}: {body}",
        "where": "n >= 100 AND lang = 'en'",
        "sample": 0.5,
    }
    run(job(input=part, output={"path": "some"}))
    table = labels(tmp_path / "some")["lang=en/b.parquet"]
    assert all(n >= 100 for n in table.column("n").to_pylist()) and 30 <= table.num_rows <= 70
    assert table.column("row").to_pylist() == table.column("n").to_pylist()


def test_a_look_shows_the_first_selected_rows_of_any_kind_and_writes_nothing(
    job, tmp_path: Path, cli
) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(
        pa.table({"text": ["visit my shop \x1b[2J", "x", "hello"], "n": [1, 0, 1]}),
        tmp_path / "in/a.parquet",
    )
    turn = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    pq.write_table(
        pa.table(
            {"text": pa.array([[{"role": "user", "content": "prize"}]] * 9, turn), "n": [1] * 9}
        ),
        tmp_path / "in/b.parquet",
    )
    file = job(
        input={"path": "in", "content": "text", "where": "n = 1"},
        output={"path": "out", "columns": []},
        model={"source": "scripted:script.yaml"},
    )
    result = cli("run", file, "--limit", "4", "--show")
    assert (
        result.returncode == 0
        and "4 rows judged, 3 flagged, nothing written" in result.stdout
        and not (tmp_path / "out").exists()
    )
    for text in (
        "visit my shop \ufffd[2J",
        "SP2 Unwanted promotion, P 0.80",
        "hello",
        "SP0 Not spam, P 0.10",
        "user: prize",
        "SP4 Deceptive or malicious, P 0.90",
    ):
        assert text in result.stdout, result.stdout
    assert result.stdout.count("user: prize") == 2


def test_unreadable_shard_is_named_and_the_others_are_labelled(
    job, corpus: Path, tmp_path: Path, cli
) -> None:
    (corpus / "torn.parquet").write_bytes(b"PAR1 no parquet")
    data = bytearray((corpus / "b.parquet").read_bytes())
    data[4:60] = os.urandom(56)  # a good footer over broken pages
    (corpus / "b.parquet").write_bytes(bytes(data))
    result = cli("run", job())
    assert result.returncode == 1 and "torn.parquet" in result.stderr
    assert {"a.parquet", "day=2/c.parquet"} <= set(labels(tmp_path / "out"))
    manifest = manifest_of(tmp_path / "out")
    assert list(manifest["unreadable"]) == ["torn.parquet"] and not manifest["complete"]


@pytest.mark.slow
def test_output_of_another_cascade_is_refused_and_replaced_when_asked(
    job, corpus: Path, tmp_path: Path, cli, golden
) -> None:
    run(job())
    file = job(model={"source": "scripted:script.yaml", "effort": "high"})
    result = cli("run", file)
    assert result.returncode == 2
    golden("another-cascade", plain(result.stderr, tmp_path))
    assert run(file, replace=True).exit_status == 0
    assert "nothing to do" in cli("run", file).stdout


@pytest.mark.slow
def test_output_of_another_input_is_refused_and_a_changed_file_is_not(
    job, corpus: Path, tmp_path: Path, cli, golden
) -> None:
    run(job())
    corpus.rename(tmp_path / "before")
    (tmp_path / "in").mkdir()
    pq.write_table(
        pa.table({"id": ["x"], "text": ["prize"], "n": pa.array([1], pa.int64())}),
        tmp_path / "in/a.parquet",
    )
    result = cli("run", job())
    assert result.returncode == 0 and labels(tmp_path / "out")["a.parquet"].column(
        "flagged"
    ).to_pylist() == [True]
    result = cli("run", job(input={"path": "before", "content": "text"}))
    assert result.returncode == 2
    golden("another-input", plain(result.stderr, tmp_path))


def test_other_columns_are_carried_without_judging_again(job, corpus: Path, tmp_path: Path) -> None:
    run(job())
    before = labels(tmp_path / "out")
    outcome = run(job(output={"path": "out", "columns": ["n"], "reasoning": "all"}))
    assert outcome.worked and outcome.judged == 0
    for name, table in labels(tmp_path / "out").items():
        assert table.equals(before[name].select(["n", "row", "content_hash", "flagged", "spam"]))


def test_output_that_another_driver_writes_is_refused_with_its_name(
    job, corpus: Path, tmp_path: Path, cli
) -> None:
    leases = tmp_path / "out/_moderay/leases"
    leases.mkdir(parents=True)
    holder = LeaseRecord(id="a", run=3, host="elsewhere", machine="another", pid=7)
    (leases / "3.json").write_bytes(holder.to_json())
    (leases / "3.beat").write_text("7")
    result = cli("run", job())
    assert (
        result.returncode == 3
        and "process 7 on elsewhere" in result.stderr
        and "Traceback" not in result.stderr
    )
    os.utime(leases / "3.beat", (time.time() - 1000,) * 2)
    assert cli("run", job()).returncode == 0


@pytest.mark.slow
def test_killed_driver_is_resumed_with_another_unit_size(
    job, corpus: Path, tmp_path: Path, cli
) -> None:
    as_lines(corpus / "b.parquet")
    slow = {"delay": {"mean_s": 0.4, "sigma": 0}, **SCRIPT}
    file = job(slow, unit={"rows": 4}, model={"source": "scripted:script.yaml"})
    driver = subprocess.Popen(
        [sys.executable, "-m", "moderay", "run", str(file)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    units = tmp_path / "out/_moderay/units"
    deadline = time.monotonic() + 120
    while (
        len(list(units.rglob("*.arrow"))) + 9 * len(labels(tmp_path / "out")) < 9
        and time.monotonic() < deadline
    ):
        time.sleep(0.05)
    kill_all(driver)
    assert len(labels(tmp_path / "out")) < 3
    # What a worker was writing as it died with its driver lies there for an hour.
    torn = set((tmp_path / "out/_moderay/tmp").glob("*"))
    assert cli("run", file, "--set", "unit.rows=7").returncode == 0
    undisturbed = job(output={"path": "whole", "reasoning": "all"})
    run(undisturbed)
    whole, resumed = labels(tmp_path / "whole"), labels(tmp_path / "out")
    assert list(whole) == list(resumed)
    for name, table in whole.items():
        assert compared(resumed[name], "spam") == compared(table, "spam")
        assert resumed[name].column("row").equals(table.column("row"))
    left = {f for f in (tmp_path / "out/_moderay").rglob("*") if f.is_file()}
    assert {f.name for f in left - torn if f.suffix != ".json"} == {"report.html"}


def test_label_adds_verdicts_to_somebodys_own_dataset(job, tmp_path: Path) -> None:
    import ray

    import moderay

    job()
    ds = ray.data.from_items([{"text": "visit my shop", "k": 1}, {"text": "hello", "k": 2}])
    model = {"source": f"scripted:{tmp_path}/script.yaml"}
    rows = sorted(
        moderay.label(ds, "text", [ROOT / "policies/spam"], model=model).take_all(),
        key=lambda row: row["k"],
    )
    assert [row["flagged"] for row in rows] == [True, False] and rows[0]["spam"]["label"] == "SP2"


def test_label_prints_one_verdict(job, cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    job()
    result = cli(
        "label",
        ROOT / "policies/spam",
        "--content",
        "claim your prize",
        "--model",
        f"scripted:{tmp_path}/script.yaml",
    )
    verdict = json.loads(result.stdout)
    assert result.returncode == 0 and (
        verdict["status"],
        verdict["label"],
        verdict["trace"]["decided_by"],
    ) == ("ok", "SP4", "reason"), result.stderr
    assert abs(sum(verdict["scores"].values()) - 1) < 1e-5
