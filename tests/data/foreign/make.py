"""Makes the files of this folder with the real libraries, in the environment of `make parity`:

    .venv-parity/bin/python -m tests.data.foreign.make [trl] [verl]

TRL trains the bundled policy for four updates; verl writes made-up numbers through its own loggers. Its rollout dump is
written here in the schema of `RayPPOTrainer._dump_generations`, whose module needs more than that environment has.
"""

import contextlib
import io
import json
import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent


def trl() -> None:
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    from workbench.policy.model import bundled_folder

    tokenizer = AutoTokenizer.from_pretrained(bundled_folder())
    prompts = [f"{a}+{a + 1}*2=" for a in range(1, 9)]
    work = HERE / "work"
    settings = GRPOConfig(
        output_dir=str(work), max_steps=4, per_device_train_batch_size=8, num_generations=4, max_completion_length=16,
        logging_steps=1, save_steps=4, log_completions=True, report_to=[], use_cpu=True, num_iterations=2, bf16=False,
        learning_rate=1e-4,
    )  # fmt: skip

    def ends(completions, **_):
        return [float("#" in text) for text in completions]

    model = AutoModelForCausalLM.from_pretrained(bundled_folder())
    trainer = GRPOTrainer(
        model=model, processing_class=tokenizer, reward_funcs=ends, args=settings,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
    )  # fmt: skip
    trainer.train()
    target = HERE / "trl"
    shutil.rmtree(target, ignore_errors=True)
    (target / "completions").mkdir(parents=True)
    shutil.copy(work / "checkpoint-4" / "trainer_state.json", target)
    for path in sorted(work.rglob("completions*.parquet")):
        shutil.copy(path, target / "completions")
    shutil.rmtree(work)


def verl() -> None:
    from verl.utils.logger import LocalLogger
    from verl.utils.tracking import FileLogger

    target = HERE / "verl"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    console = io.StringIO()
    with contextlib.redirect_stdout(console):
        local = LocalLogger()
        for step in (1, 2, 3):
            local.log(measures(step), step)
    (target / "console.log").write_text(f"(TaskRunner pid=7) starting\n{console.getvalue()}")
    os.environ["VERL_FILE_LOGGER_PATH"] = str(target / "metrics.jsonl")
    file = FileLogger("project", "experiment")
    for step in (1, 2, 3):
        file.log(measures(step), step)
    file.finish()
    (target / "rollouts").mkdir()
    for step in (1, 3):
        columns = {
            "input": ["1+1=", "1+1=", "2+3="], "output": ["2#", "3#", "5<script>#"], "gts": ["2", "2", "5"],
            "score": [1.0, 0.0, 1.0], "step": [step] * 3, "acc": [1.0, 0.0, 1.0],
        }  # fmt: skip
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (target / "rollouts" / f"{step}.jsonl").write_text("\n".join(lines) + "\n")


def measures(step: int) -> dict[str, float]:
    return {
        "actor/entropy": 0.5 / step, "critic/rewards/mean": 0.25 * step, "critic/score/mean": 0.25 * step,
        "response_length/mean": 20.0 + step, "actor/pg_clipfrac": 0.01, "actor/ppo_kl": -1e-05, "timing_s/step": 2.5,
    }  # fmt: skip


if __name__ == "__main__":
    for make in sys.argv[1:] or ("trl", "verl"):
        {"trl": trl, "verl": verl}[make]()
