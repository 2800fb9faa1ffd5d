"""The real engine: the demo corpus through the pipeline on vLLM, beside one plain `AsyncLLM` fed the same prompts."""

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ROOT, labels

from moderay import tiny
from moderay.policy import load_policy
from moderay.prompt import prompt, vocabulary
from moderay.tiny import demo

POLICIES = ("spam", "harassment", "private_data")
ROWS = 40


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, cli) -> Path:  # type: ignore[no-untyped-def]
    """Forty rows of each demo shard, labelled in float32 at temperature 0 by `moderay run`."""
    folder = tmp_path_factory.mktemp("demo")
    demo.write(folder / "whole")
    (folder / "in").mkdir()
    for file in (folder / "whole").iterdir():
        pq.write_table(pq.read_table(file).slice(60, ROWS), folder / "in" / file.name)
    said = cli(
        "run",
        ROOT / "jobs/demo.yaml",
        *(f"--set=input.path={folder}/in", f"--set=output.path={folder}/out", "--set=output.reasoning=all"),
        *("--set=model.sampling={temperature: 0}", "--set=model.dtype=float32", "--agreement", "truth_"),
    )
    assert said.returncode == 0, said.stderr
    (folder / "said.txt").write_text(said.stdout)
    return folder


def test_every_status_and_share_is_as_the_corpus_has_it(labelled: Path) -> None:
    found = labels(labelled / "out")
    assert sum(table.num_rows for table in found.values()) == 4 * ROWS
    for name, table in found.items():
        source = pq.read_table(labelled / "in" / name)
        assert table.column("id").equals(source.column("id"))
        for policy in POLICIES:
            for verdict, content in zip(table.column(policy).to_pylist(), source.column("content").to_pylist(), strict=True):
                nothing = content is None or (isinstance(content, str) and not content.strip())
                assert verdict["status"] == ("empty" if nothing else "too_long" if len(content) > 10**6 else "ok")
                assert (verdict["violates"] is None) == (verdict["status"] != "ok")
    agreement = re.search(r"agreement (\d\.\d\d)", (labelled / "said.txt").read_text())
    assert agreement is not None and float(agreement[1]) >= 0.85


def test_verdicts_equal_those_of_a_plain_engine_row_by_row(labelled: Path, tmp_path: Path) -> None:
    """The plain engine knows nothing of moderay but the prompts, and reads the answers its own simple way."""
    vocab = vocabulary(str(tiny.FOLDER))
    prompts, expected = [], []
    for name, table in labels(labelled / "out").items():
        contents = pq.read_table(labelled / "in" / name).column("content").to_pylist()
        for policy_id in POLICIES:
            form = prompt(load_policy(ROOT / "policies" / policy_id), "low", vocab)
            for content, verdict in zip(contents, table.column(policy_id).to_pylist(), strict=True):
                if verdict["status"] == "ok" and isinstance(content, str):
                    prompts.append(form.render(vocab.encode(content)))
                    expected.append((policy_id, verdict))
    (tmp_path / "prompts.json").write_text(json.dumps(prompts))
    stop = vocab.control["<|return|>"]
    env = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_LOGGING_LEVEL": "ERROR"}
    subprocess.run([sys.executable, __file__, str(tmp_path), str(stop)], check=True, env=env, timeout=500)
    outputs = json.loads((tmp_path / "outputs.json").read_text())
    for (policy_id, verdict), tokens in zip(expected, outputs, strict=True):
        text = vocab.decode(tokens)
        thought = re.fullmatch(r"<\|channel\|>analysis<\|message\|>(.*?)<\|end\|>.*", text, re.DOTALL)
        final = re.search(r"<\|channel\|>final<\|message\|>(.*)<\|return\|>$", text, re.DOTALL)
        if verdict["forced"]:
            continue
        assert thought is not None and final is not None and thought[1] == verdict["reasoning"]
        written = final[1] if policy_id == "private_data" else json.loads(final[1])["label"]
        assert written == (verdict["answer"] or verdict["label"])
        assert policy_id == "private_data" or json.loads(final[1])["rationale"] == verdict["rationale"]
    assert sum(not verdict["forced"] for _, verdict in expected) > len(expected) // 2


def test_label_prints_one_verdict(cli) -> None:  # type: ignore[no-untyped-def]
    said = cli("label", ROOT / "policies/spam", "--content", "claim your free prize before midnight")
    verdict = json.loads(said.stdout)
    assert said.returncode == 0 and verdict["status"] == "ok" and verdict["decided_by"] == "reason"
    assert abs(sum(verdict["scores"]) - 1) < 1e-5 and "not a moderation" not in said.stdout and "tiny" in said.stderr


def test_model_that_is_not_there_is_one_sentence(job, corpus: Path, cli) -> None:  # type: ignore[no-untyped-def]
    said = cli("run", job(model={"source": "./no-such-model"}))
    assert said.returncode == 2 and "no-such-model" in said.stderr and "Traceback" not in said.stderr, said.stderr


async def _plain(folder: Path, stop: int) -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.sampling_params import RequestOutputKind, SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

    args = AsyncEngineArgs(model=str(tiny.FOLDER), dtype="float32", skip_tokenizer_init=True, max_model_len=8192, max_num_batched_tokens=8192, max_num_seqs=256)
    engine = AsyncLLM.from_engine_args(args)
    sampling = SamplingParams(temperature=0, max_tokens=736, stop_token_ids=[stop], detokenize=False, output_kind=RequestOutputKind.FINAL_ONLY)

    async def one(number: int, ids: list[int]) -> list[int]:
        async for output in engine.generate({"prompt_token_ids": ids}, sampling, str(number)):
            tokens = list(output.outputs[0].token_ids)
        return tokens

    prompts = json.loads((folder / "prompts.json").read_text())
    outputs = await asyncio.gather(*[one(i, ids) for i, ids in enumerate(prompts)])
    (folder / "outputs.json").write_text(json.dumps(outputs))
    engine.shutdown()


if __name__ == "__main__":
    asyncio.run(_plain(Path(sys.argv[1]), int(sys.argv[2])))
