"""LoRA on gpt-oss from what people taught, merged into a checkpoint that vLLM serves.

`python infra/fine_tuning/lora.py --model openai/gpt-oss-safeguard-20b --data sft --out tuned` takes
what `moderay export sft` wrote. docs/fine-tuning.md says what it needs and how to tell whether the
model got better. It asks for torch, transformers, trl and peft (`pip install "moderay[train]"`) and
nothing of moderay.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from huggingface_hub import snapshot_download
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Mxfp4Config,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    set_seed,
)
from trl import SFTConfig, SFTTrainer

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
# All experts of a layer are one parameter and no Linear, which target_modules would not find.
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
IGNORED = -100
# What lies beside weights and is of the merged model as well: its vocabulary above all.
COPIED = (".json", ".txt", ".model", ".jinja", ".tiktoken")


def conversations(file: Path, seed: int = 0) -> Dataset:
    """Token ids and labels of one part of an export.

    What was not said by people or confirmed by them is not learned: `completion_mask` tells. A row
    stands there as often as its weight says, rounded by lot.

    Args:
        file: train.parquet or validation.parquet.
        seed: Of the lot.
    """
    table = pq.read_table(file, columns=["input_ids", "completion_mask", "weight"])
    ids, masks, weights = (table.column(name).to_pylist() for name in table.column_names)
    labels = [
        [token if learned else IGNORED for token, learned in zip(row, mask, strict=True)]
        for row, mask in zip(ids, masks, strict=True)
    ]
    often = np.floor(np.array(weights) + np.random.default_rng(seed).random(len(weights)))
    rows = np.repeat(np.arange(len(ids)), often.astype(int))
    return Dataset.from_dict(
        {"input_ids": [ids[row] for row in rows], "labels": [labels[row] for row in rows]}
    )


def loaded(folder: Path) -> PreTrainedModel:
    """The model in bf16 on a GPU, else in float32; what is MXFP4 is unpacked, or nothing trains."""
    config = AutoConfig.from_pretrained(folder)
    quantized: dict[str, Any] = {}
    if getattr(config, "quantization_config", None) is not None:
        quantized["quantization_config"] = Mxfp4Config(dequantize=True)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.bfloat16 if torch.cuda.is_available() else torch.float32,
        attn_implementation="eager",  # it has gpt-oss's attention sinks
        use_cache=False,
        device_map="auto" if torch.cuda.is_available() else None,
        **quantized,
    )
    return model


def padding(model: PreTrainedModel) -> PreTrainedTokenizerFast:
    """What the trainer pads with: conversations are token ids already, and nothing is encoded."""
    from tokenizers import Tokenizer, models  # noqa: PLC0415  comes with transformers

    token = model.config.pad_token_id if model.config.pad_token_id is not None else 0
    words = models.WordLevel({f"<{number}>": number for number in range(token + 1)}, f"<{token}>")
    name = f"<{token}>"
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(words), pad_token=name, eos_token=name
    )


def train(folder: Path, data: Path, out: Path, options: argparse.Namespace) -> None:
    """Train, merge and save.

    Args:
        folder: Of the model.
        data: Of the export.
        out: Of the merged model.
        options: Of the command line.
    """
    set_seed(options.seed)
    model = loaded(folder)
    config, generation = copy.deepcopy(model.config), copy.deepcopy(model.generation_config)
    adapted = get_peft_model(
        model,
        LoraConfig(
            r=options.rank,
            lora_alpha=2 * options.rank,
            target_modules=ATTENTION,
            target_parameters=EXPERTS,
            task_type="CAUSAL_LM",
        ),
    )
    adapted.print_trainable_parameters()
    validation = data / "validation.parquet"
    has_validation = validation.exists() and pq.read_metadata(validation).num_rows > 0
    trainer = SFTTrainer(
        adapted,
        SFTConfig(
            output_dir=str(out / "training"),
            num_train_epochs=options.epochs,
            learning_rate=options.learning_rate,
            per_device_train_batch_size=options.batch,
            per_device_eval_batch_size=options.batch,
            gradient_accumulation_steps=options.accumulate,
            lr_scheduler_type="cosine",
            warmup_steps=0.05,
            gradient_checkpointing=torch.cuda.is_available(),
            bf16=torch.cuda.is_available(),
            use_cpu=not torch.cuda.is_available(),
            max_length=None,  # nothing is cut: a label without its end teaches something else
            eval_strategy="epoch" if has_validation else "no",
            logging_strategy="epoch",
            save_strategy="no",
            report_to="none",
            seed=options.seed,
            data_seed=options.seed,
        ),
        train_dataset=conversations(data / "train.parquet", options.seed),
        eval_dataset=conversations(validation) if has_validation else None,
        processing_class=padding(model),
    )
    trainer.train()
    (out / "training.json").write_text(json.dumps(trainer.state.log_history, indent=1) + "\n")
    merged = adapted.merge_and_unload().to(torch.bfloat16)
    # The trainer sets the tokens that end an answer to its padding's.
    merged.config, merged.generation_config = config, generation
    config.dtype, config.use_cache = torch.bfloat16, True
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # it is bf16 now
    merged.save_pretrained(out)
    copy_vocabulary(folder, out)


def copy_vocabulary(folder: Path, out: Path) -> None:
    """Copy what lies beside the weights and was not written anew."""
    for file in folder.iterdir():
        is_index = file.name.endswith(".index.json")  # of weights in several files
        if file.suffix in COPIED and not is_index and not (out / file.name).exists():
            shutil.copy(file, out)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="hub id or folder")
    parser.add_argument("--data", type=Path, required=True, help="what moderay export sft wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder of the merged model")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--batch", type=int, default=4, help="conversations at once")
    parser.add_argument("--accumulate", type=int, default=4, help="batches a step")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    folder = Path(options.model)
    if not folder.is_dir():
        folder = Path(snapshot_download(options.model))
    train(folder, options.data, options.out, options)


if __name__ == "__main__":
    main()
