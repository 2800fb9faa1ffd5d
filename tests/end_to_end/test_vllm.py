"""The real engine: the demo corpus through the pipeline on vLLM, killed on the way, beside one
plain `AsyncLLM` fed the same prompts.
"""

import asyncio
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from benchmarks.chaos import killed_vllm
from support.checkpoints import stored
from support.outputs import labels, manifest_of, verdicts_of
from support.project import ROOT

from moderay.config.policy import load_policy
from moderay.core.verdicts import Status
from moderay.engines import checkpoint
from moderay.engines.harmony.prompt import prompt
from moderay.engines.harmony.vocabulary import vocabulary
from moderay.engines.tiny import demo

POLICIES = ("spam", "harassment", "private_data")
# Log-probabilities a plain engine is asked for at every token: the labels' are among the likeliest.
LOGPROBS = 12


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, s3: dict[str, str]) -> Path:
    """The demo corpus, labelled in float32 at temperature 0 by `moderay run`, with the weights in
    an object store, from where the first start of the engine fetches them, and the engine's process
    killed on the way.
    """
    folder = tmp_path_factory.mktemp("demo")
    demo.write(folder / "in")
    with stored(s3, folder) as model:
        options = (f"--set=model.source={model}", "--set=unit.rows=40", "--agreement", "truth_")
        kills, result = killed_vllm(folder / "in", folder / "out", ("engine",), *options)
    assert kills == {"engine": 1}
    (folder / "said.txt").write_text(result)
    return folder


def test_part_of_the_demo_is_labelled_as_it_should_be(tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    demo.write(tmp_path / "in")
    sets = [f"input.path={tmp_path}/in", f"output.path={tmp_path}/out", "input.sample=0.1"]
    ran = cli("run", ROOT / "jobs/demo.yaml", "--agreement=truth_", *(f"--set={s}" for s in sets))
    assert ran.returncode == 0, ran.stderr
    verdicts = [
        (verdict["status"], verdict["decided_by"], verdict["violates"] is None)
        for table in labels(tmp_path / "out").values()
        for policy in POLICIES
        for verdict in verdicts_of(table, policy)
    ]
    judged = verdicts.count(("ok", "reason", False))
    assert len(verdicts) > 3 * 80 and judged > 0.9 * len(verdicts)
    assert all(nothing == (status != "ok") for status, _, nothing in verdicts)
    agreement = re.search(r"agreement (\d\.\d\d)", ran.stdout)
    assert agreement is not None and float(agreement[1]) >= 0.9


@pytest.mark.slow
def test_engine_that_asks_ray_for_a_gpu_judges_every_row(tmp_path: Path, cli) -> None:  # type: ignore[no-untyped-def]
    """The GPU is one in Ray's books only. What Ray Data wants of actors with GPUs, and where it
    puts them, is real.
    """
    demo.write(tmp_path / "in")
    sets = [f"input.path={tmp_path}/in", f"output.path={tmp_path}/out", "input.sample=0.03"]
    sets += ["unit.rows=100", "model.engine.max_num_seqs=32", "model.engine.enforce_eager=true"]
    books = {"RAY_ADDRESS": "local", "RAY_OVERRIDE_RESOURCES": '{"GPU": 1}'}
    ran = cli("run", ROOT / "jobs/demo.yaml", *(f"--set={s}" for s in sets), **books)
    assert ran.returncode == 0, ran.stderr
    manifest = manifest_of(tmp_path / "out")
    assert manifest["runs"][-1]["hardware"]["gpus"] == 1 and manifest["rows"] > 20
    for counts in manifest["counts"].values():
        assert counts["ok"] > 0.8 * manifest["rows"]
        assert sum(counts[status.value] for status in Status) == manifest["rows"]


@pytest.mark.slow
def test_every_status_and_share_is_as_the_corpus_has_it(labelled: Path) -> None:
    actual = labels(labelled / "out")
    assert sum(table.num_rows for table in actual.values()) == 1200
    for name, table in actual.items():
        source = pq.read_table(labelled / "in" / name)
        assert table.column("id").equals(source.column("id"))
        for policy in POLICIES:
            for verdict, content in zip(
                verdicts_of(table, policy), source.column("content").to_pylist(), strict=True
            ):
                nothing = content is None or (isinstance(content, str) and not content.strip())
                assert verdict["status"] == (
                    "empty" if nothing else "too_long" if len(content) > 10**6 else "ok"
                )
                assert (verdict["violates"] is None) == (verdict["status"] != "ok")
    agreement = re.search(r"agreement (\d\.\d\d)", (labelled / "said.txt").read_text())
    assert agreement is not None and float(agreement[1]) >= 0.9
    assert manifest_of(labelled / "out")["runs"][-1]["engine_restarts"] == 1
    assert len(list((labelled / "cache/weights").glob("*/model.safetensors"))) == 1


@pytest.mark.slow
def test_verdicts_equal_those_of_a_plain_engine_row_by_row(labelled: Path, tmp_path: Path) -> None:
    """The plain engine knows nothing of moderay but the prompts, and its answers are read in
    another, simple way.
    """
    vocab = vocabulary(str(checkpoint.TINY_FOLDER))
    forms = {name: prompt(load_policy(ROOT / "policies" / name), "low", vocab) for name in POLICIES}
    prompts, expected = [], []
    for name, table in labels(labelled / "out").items():
        contents = pq.read_table(labelled / "in" / name).column("content").to_pylist()
        for policy_id in POLICIES:
            for content, verdict in zip(contents, verdicts_of(table, policy_id), strict=True):
                if verdict["status"] == "ok":
                    text = (
                        content
                        if isinstance(content, str)
                        else "\n".join(f"{turn['role']}:\n  {turn['content']}" for turn in content)
                    )
                    prompts.append(forms[policy_id].render(vocab.encode(text)))
                    expected.append((policy_id, verdict))
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    stop = vocab.control["<|return|>"]
    env = os.environ | {
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    subprocess.run(
        [sys.executable, __file__, str(tmp_path), str(stop)], check=True, env=env, timeout=900
    )
    outputs = json.loads((tmp_path / "outputs.json").read_text())
    written = 0
    for (policy_id, verdict), (tokens, logprobs) in zip(expected, outputs, strict=True):
        plain = _read(policy_id, tokens, logprobs)
        assert verdict["forced"] is (plain is None)
        if plain is not None:
            label, rationale, reasoning, probability = plain
            assert (
                verdict["answer"] or verdict["label"],
                verdict["rationale"],
                verdict["reasoning"],
            ) == (label, rationale, reasoning)
            assert verdict["probability"] == pytest.approx(probability, abs=1e-3)
            written += 1
    assert written > 0.95 * len(expected)


def _read(
    policy_id: str, tokens: list[int], logprobs: list[dict[str, float]]
) -> tuple[str, str | None, str, float] | None:
    """Label, rationale, reasoning and P(violates) of an answer in the expected form; None for any
    other.
    """
    vocab, policy = (
        vocabulary(str(checkpoint.TINY_FOLDER)),
        load_policy(ROOT / "policies" / policy_id),
    )
    text = vocab.decode(tokens)
    actual = re.fullmatch(
        r"<\|channel\|>analysis<\|message\|>([^|]*)<\|end\|><\|start\|>assistant<\|channel\|>final<\|message\|>([^|]*)<\|return\|>",
        text,
    )
    if actual is None:
        return None
    try:
        answer = (
            {"label": actual[2], "rationale": None}
            if policy.answer == "label"
            else json.loads(actual[2])
        )
    except ValueError:
        return None
    if answer["label"] not in policy.labels:
        return None
    # Where the label's own text parts from the other labels': its last character, a token of its
    # own.
    names = policy.label_names
    ends = {vocab.encode(name)[-1]: name for name in names}
    opening = "" if policy.answer == "label" else '{"label": "'
    body = len(tokens) - tokens[::-1].index(vocab.control["<|message|>"])
    at = body + len(vocab.encode(opening + answer["label"])) - 1
    weights = {
        name: math.exp(logprobs[at].get(str(token), -math.inf)) for token, name in ends.items()
    }
    bad = sum(weights[name] for name in names if policy.labels[name].violates)
    return answer["label"], answer["rationale"], actual[1], bad / sum(weights.values())


def test_model_that_is_not_there_is_one_sentence(job, corpus: Path, cli) -> None:  # type: ignore[no-untyped-def]
    result = cli("run", job(model={"source": "./no-such-model"}))
    assert (
        result.returncode == 2
        and "no-such-model" in result.stderr
        and "Traceback" not in result.stderr
    ), result.stderr


async def _plain(folder: Path, stop: int) -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.sampling_params import RequestOutputKind, SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

    # As small to start as ours is on two cores; neither changes what is computed.
    small = {
        "enforce_eager": True,
        "distributed_executor_backend": "vllm.v1.executor.uniproc_executor.UniProcExecutor",
    }
    sizes = {"max_model_len": 8192, "max_num_batched_tokens": 8192, "max_num_seqs": 256}
    args = AsyncEngineArgs(
        model=str(checkpoint.TINY_FOLDER),
        dtype="float32",
        skip_tokenizer_init=True,
        **sizes,
        **small,
    )
    engine = AsyncLLM.from_engine_args(args)
    sampling = SamplingParams(
        temperature=0,
        max_tokens=736,
        stop_token_ids=[stop],
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
        logprobs=LOGPROBS,
    )

    async def one(number: int, ids: list[int]) -> tuple[list[int], list[dict[int, float]]]:
        async for output in engine.generate({"prompt_token_ids": ids}, sampling, str(number)):
            result = output.outputs[0]
        return list(result.token_ids), [
            {token: value.logprob for token, value in step.items()} for step in result.logprobs
        ]

    prompts = json.loads((folder / "prompts.json").read_text())
    outputs = await asyncio.gather(*[one(i, ids) for i, ids in enumerate(prompts)])
    (folder / "outputs.json").write_text(json.dumps(outputs))
    engine.shutdown()


if __name__ == "__main__":
    asyncio.run(_plain(Path(sys.argv[1]), int(sys.argv[2])))
