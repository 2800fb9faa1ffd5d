"""How the benchmarks measure: deadlines, threads, ratios, and what the report says of them."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from benchmarks import full, speed, workload
from benchmarks.engine_work import EngineWork, steady
from benchmarks.machine import Machine
from benchmarks.measured import Deadline, Look, Outcome, last_error, measure
from benchmarks.records import Case, Part, figure, lines_of, markdown, number, ratios
from benchmarks.scale import slope

MACHINE = Machine(
    cpu="a CPU",
    cores=2,
    memory_gib=24.0,
    load=0.1,
    system="Linux",
    python="3.11",
    versions={"vllm": "0.32.0"},
    commit="abc",
    date="2026-11-27 12:00 UTC",
)


def program(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def outcome(rate: float, **result: float) -> Outcome:
    """Of a measurement in which the engine was busy half the time, others a tenth."""
    looks = tuple(Look(at, at / 2, at / 10) for at in (0.0, 10.0, 20.0))
    told = {"rate": rate, "begin": 5.0, "end": 15.0, "tokens_out": 50, **result}
    return Outcome(told, 20.0, looks, threads=1)


def test_measurement_that_ends_gives_what_it_printed_last() -> None:
    done = measure(program("print('noise'); print('{\"rate\": 3}'); print('bye')"), 60)
    assert done.result == {"rate": 3} and not done.hung and not done.wrong


def test_measurement_that_hangs_is_ended_with_what_it_started() -> None:
    text = (
        "import subprocess, sys, time\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid)\n"
        "sys.stdout.flush(); time.sleep(600)"
    )
    before = {process.pid for process in psutil.process_iter()}
    done = measure(program(text), 3)
    assert done.hung and "hung" in done.wrong and done.result == {}
    left = [p for p in psutil.Process().children(recursive=True) if p.pid not in before]
    assert [p for p in left if p.status() != psutil.STATUS_ZOMBIE] == []


def test_measurement_that_fails_says_why() -> None:
    done = measure(program("raise SystemExit('no engine here')"), 60)
    assert done.wrong == "no engine here" and not done.hung
    said = ["Traceback:", "  raise X", "x.Problems: job.yaml:3: no such thing", "    hint: another"]
    assert last_error(said) == "x.Problems: job.yaml:3: no such thing hint: another"
    assert measure(program(""), 60).wrong == "ended with status 0 and no result"


def test_threads_are_told_to_the_process_and_read_back_from_an_engine() -> None:
    text = (
        "import json, os, time\n"
        "time.sleep(2)  # EngineCore\n"
        "print(json.dumps({'told': os.environ['OMP_NUM_THREADS']}))\n"
    )
    done = measure(program(text), 60, threads=3)
    assert done.result == {"told": "3"} and done.threads == 3


def test_cpu_of_an_engine_stands_apart_from_that_of_others() -> None:
    busy = "import time\nend = time.process_time() + 1\nwhile time.process_time() < end: pass\n"
    done = measure(program(busy + "time.sleep(1)\nprint('{}')"), 120)
    engine, others = done.cpu(done.looks[0].at, done.looks[-1].at)
    assert engine == 0 and 0.3 < others < 2


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234.5, "1,234"), (12.345, "12.35"), (0.98765, "0.988"), (6e-8, "6.0e-08")],
)
def test_number_has_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_figure_shows_its_spread_only_where_there_is_one() -> None:
    assert [figure([value]).shown() for value in (1.0, 1.25)] == ["1", "1.25"]
    assert figure([3.0, 1.0, 2.0]).shown() == "2.00 (1.00 to 3.00)"


def test_ratio_is_the_median_of_the_rounds_and_not_of_the_rates() -> None:
    assert ratios([10, 200, 30], [10, 100, 20]).value == 1.5


def test_steady_state_leaves_out_start_and_end() -> None:
    marks = [(0.0, 1), (10.0, 20), (20.0, 50), (30.0, 80), (31.0, 100)]
    assert steady(marks, 100) == (3.0, 10.0, 30.0)
    few = [(0.0, 10), (10.0, 100)]
    assert steady(few, 100) == (9.0, 0.0, 10.0)
    assert math.isnan(steady([(1.0, 5)], 5)[0])


def test_case_has_ratios_to_both_bare_engines_and_cpu_a_row() -> None:
    measured = {
        speed.OURS: [outcome(90), outcome(110)],
        speed.BARE: [outcome(100), outcome(100)],
        speed.BARE_P: [outcome(60), outcome(55)],
    }
    made = speed.case(speed.OURS, measured[speed.OURS], measured)
    assert made.figures["ratio to bare"].rounds == (0.9, 1.1)
    assert made.figures["to bare with P"].rounds == (1.5, 2.0)
    assert made.figures["engine ms"].rounds[0] == pytest.approx(5000 / 900)
    assert made.figures["threads"].value == 1


def test_case_without_a_result_says_why_and_a_round_that_failed_counts_nowhere() -> None:
    hung = Outcome({}, 9.0, (), None, "hung: nothing more after 9 s", hung=True)
    assert speed.case("Daft", [hung], {}).note == hung.wrong
    assert speed.case("Daft", [], {}).note == "no time was left"
    measured = {speed.OURS: [outcome(90), outcome(80)], speed.BARE: [hung, outcome(100)]}
    made = speed.case(speed.OURS, measured[speed.OURS], measured)
    assert made.figures["ratio to bare"].value == 0.8


def test_contest_alternates_and_waits_once_for_who_hangs() -> None:
    asked: list[str] = []

    def contender(name: str, text: str) -> speed.Contender:
        def command(_: Path, number: int) -> Sequence[str]:
            asked.append(f"{name}{number}")
            return program(text)

        return command

    good = contender("good", "print('{\"rate\": 1}')")
    contenders = {"good": good, "hangs": contender("hangs", "import time; time.sleep(600)")}
    terms = speed.Terms(rounds=2, threads=1, hung_s=2)
    measured, begun = speed.contest(Path("job.yaml"), contenders, terms, Deadline(600))
    assert begun == 2 and asked == ["good0", "hangs0", "good1"]
    assert [each.hung for each in measured["hangs"]] == [True]
    none, begun = speed.contest(Path("job.yaml"), contenders, terms, Deadline(-1))
    assert begun == 0 and none == {"good": [], "hangs": []}


def test_slope_tells_growth_as_a_power() -> None:
    assert slope([10, 100, 1000], [2.0, 20.0, 200.0]) == pytest.approx(1)
    assert slope([10, 100, 1000], [5.0, 5.0, 5.0]) == pytest.approx(0)


PART = Part(
    part="speed",
    title="Side by side",
    settings={"rows": 4000, "runner": "V1"},
    columns=("rows/s", "ratio"),
    cases=(
        Case(name="moderay", figures={"rows/s": figure([90, 100, 95]), "ratio": figure([0.95])}),
        Case(name="Daft", note="hung: nothing more after 600 s"),
    ),
    notes=("temperature 0",),
    left_out=("2 of 5 rounds, the time was over",),
)


def test_part_is_the_same_after_json_and_its_table_says_what_is_missing() -> None:
    assert Part.model_validate_json(PART.to_json()) == PART
    _, body = lines_of(PART)
    assert body[1] == ("Daft", "-", "-")
    text = markdown(PART)
    assert "| moderay | 95.00 (90.00 to 100) | 0.950 |" in text
    assert "- Daft: hung: nothing more after 600 s" in text
    assert "- Not measured: 2 of 5 rounds" in text


def test_report_keeps_the_parts_that_were_not_run_again(tmp_path: Path) -> None:
    report = full.Report(machine=MACHINE, minutes=60, size=1)
    report = full.with_part(report, PART.model_copy(update={"part": "scale"}))
    report = full.with_part(report, PART)
    newer = PART.model_copy(update={"title": "Newer"})
    report = full.with_part(report, newer)
    assert [(part.part, part.title) for part in report.parts] == [
        ("speed", "Newer"),
        ("scale", "Side by side"),
    ]
    full.write(report, tmp_path)
    read = full.Report.model_validate_json((tmp_path / "BENCHMARKS.json").read_text())
    assert read == report
    text = (tmp_path / "BENCHMARKS.md").read_text()
    assert "## Newer" in text and "a CPU, 2 cores, 24 GiB, no GPU" in text
    assert (tmp_path / "BENCHMARKS.svg").read_text().startswith("<?xml")


def task(name: str, *arguments: str) -> full.Task:
    return full.Task("start", name, 1, arguments)


def test_part_that_is_not_there_or_fails_is_reported_and_ends_nothing(tmp_path: Path) -> None:
    missing = full.run_task(task("no_such_module"), 1, 60, tmp_path)
    assert missing.left_out == ("this version has no such part",)
    failed = full.run_task(task("machine", "--unknown"), 1, 60, tmp_path)
    assert failed.left_out == ("ended with status 0 and no result",)


def test_part_that_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full, "GRACE", 1)
    monkeypatch.setattr(full, "module", lambda *_: program("import time; time.sleep(600)"))
    began = time.monotonic()
    ended = full.run_task(task("machine"), 1, 1, tmp_path)
    assert "without a result" in ended.left_out[0] and time.monotonic() - began < 60


def test_workload_has_as_many_distinct_contents_and_tokens_as_it_says(tmp_path: Path) -> None:
    load = workload.Workload(rows=60, policies=4, policy_tokens=900, broken=0.1)
    work = EngineWork(workload.write(tmp_path / "work", load))
    texts = workload.contents(tmp_path / "work")
    assert len(texts) == 60 and len(set(texts)) == 54 + 2 and texts.count(None) == 3
    assert [judge.policy.id for judge in work.judges] == [f"policy_{n}" for n in range(4)]
    encode = work.judges[0].safeguard.vocab.encode
    assert all(900 <= len(encode(judge.policy.text)) < 1000 for judge in work.judges)
    prompts = work.prompts()
    assert len(prompts) == 240
    long = [ids for _, ids in prompts if len(ids) > work.spec.max_model_len]
    assert len(long) == 12


def test_workload_of_long_contents_is_about_as_long(tmp_path: Path) -> None:
    load = workload.Workload(rows=5, content_tokens=2000)
    work = EngineWork(workload.write(tmp_path / "work", load))
    encode = work.judges[0].safeguard.vocab.encode
    lengths = [len(encode(text or "")) for text in workload.contents(tmp_path / "work")]
    assert all(1900 <= length <= 2100 for length in lengths)
    assert work.spec.max_model_len > 4000


def test_bare_engine_gets_the_pipelines_arguments_without_what_is_for_p(tmp_path: Path) -> None:
    work = EngineWork(workload.write(tmp_path / "work", workload.Workload(rows=2)))
    arguments = work.arguments()
    assert arguments["max_num_seqs"] == work.spec.max_num_seqs
    assert not {"scheduler_cls", "logits_processors"} & arguments.keys()


@pytest.mark.slow
def test_random_model_has_the_published_shapes_and_no_weights(tmp_path: Path) -> None:
    from safetensors.numpy import load_file
    from transformers import GptOssConfig

    folder = workload.random_model(tmp_path / "20b", "20b")
    published = GptOssConfig(num_hidden_layers=24, num_local_experts=32).to_dict()
    made = json.loads((folder / "config.json").read_text())
    names = {*workload.MODELS["20b"], "sliding_window", "swiglu_limit", "rope_parameters"}
    ours_alone = {"quantization_config", "eos_token_id", "pad_token_id"}
    assert {n: made[n] for n in names - ours_alone} == {
        n: published[n] for n in names - ours_alone
    } | {"rope_parameters": made["rope_parameters"]}
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert load_file(folder / "model.safetensors") == {}


def test_one_thing_at_a_time_differs_from_the_base_case() -> None:
    from benchmarks.shapes import variants

    base, *others = variants(workload.Workload()).values()
    aside = ("rows", "budget")  # so that all take about as long
    for other in others:
        same = replace(other, **{name: getattr(base, name) for name in aside})
        assert sum(a != b for a, b in zip(_fields(same), _fields(base), strict=True)) == 1


def _fields(load: workload.Workload) -> list[object]:
    return list(vars(load).values())
