"""A rollout step of ours beside one of TRL's GRPOTrainer, alternating in one process: time, tokens per second, memory.

    make bench-trl                                              # all three set-ups
    .venv-trl/bin/python -m tests.benchmarks.trl_cpu lengths --steps 3

Policy, prompts, reward, batch (32 prompts × 16 responses, 4 updates), optimiser, learning rate and fp32 are the same.
TRL's settings are the fastest found on CPU: no gradient checkpointing, SDPA attention, whole mini-batches as one
micro-batch (`--trl-batch` sets a smaller one), β = 0, so no reference model; logging and saving off. Each takes its own
way: TRL scores the rollouts once more before four updates, ours has log-probs and entropy from its sampler.

Peak memory is of the updates alone, each side in a process of its own: the high-water mark of resident memory above
what was resident before the first update. The floor is arithmetic: 2 FLOPs per weight and row to sample, 6 to update,
attention left out, at the rate of the machine's best fp32 matrix product, measured in the same run.
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM, TrainerCallback

import workbench as wb
from tests.benchmarks.rollout_step import matmul_peak
from workbench.policy.model import bundled_folder
from workbench.tasks import get_task
from workbench.training.trainer import Trainer

UPDATES = 4


@dataclass(frozen=True)
class SetUp:
    """`policy` is 'bundled' or the vocabulary and longest text of a random one in its shape."""

    what: str
    policy: tuple[int, int] | None
    max_new_tokens: int


SETUPS = {
    "default": SetUp("bundled policy, about 21 tokens a response", None, 48),
    "lengths": SetUp(
        "random policy that ends at any token: geometric lengths, mean 112, at most 512", (112, 1024), 512
    ),
    "vocabulary": SetUp("random policy with 151,936 tokens, 21 a response: the head dominates", (151_936, 256), 21),
}


def policy_folder(setup: SetUp, root: Path) -> Path:
    """The policy both sides load: near-uniform where it is random, so its one end mark gives geometric lengths."""
    if setup.policy is None:
        return bundled_folder()
    vocabulary, longest = setup.policy
    config = Qwen2Config.from_pretrained(bundled_folder())
    config.vocab_size, config.max_position_embeddings, config.eos_token_id = vocabulary, longest, 1
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config)
    model.generation_config.eos_token_id = 1
    model.save_pretrained(root)
    AutoTokenizer.from_pretrained(bundled_folder()).save_pretrained(root)
    return root


def our_trainer(setup: SetUp, folder: Path, prompts: int) -> Trainer:
    overrides = {
        "policy.model": str(folder),
        "policy.device": "cpu",
        "rollout.prompts": prompts,
        "rollout.max_new_tokens": setup.max_new_tokens,
        "training.micro_batch_tokens": 1 << 20 if setup.max_new_tokens < 100 else 16384,
        "storage.measure_change_share": 0,
        "evaluation.sets": [],
    }
    return Trainer(wb.preset("cpu", overrides))


def trl_trainer(setup: SetUp, folder: Path, prompts: int, steps: int, batch: int, callback: TrainerCallback):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    task, tokenizer = get_task("reduce"), AutoTokenizer.from_pretrained(folder)
    asked = {prompt.text: prompt for prompt in task.train_prompts(4096, 0)}

    def reward(prompts, completion_ids, **_):
        texts = tokenizer.batch_decode(completion_ids, clean_up_tokenization_spaces=False)
        return [verdict.reward for verdict in task.verify_all([asked[text] for text in prompts], texts)]

    micro = min(batch, prompts * 16 // UPDATES)
    parts = prompts * 16 // UPDATES // micro
    config = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=True,
        bf16=False,
        fp16=False,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=parts,
        steps_per_generation=UPDATES * parts,
        num_generations=16,
        max_completion_length=setup.max_new_tokens,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        beta=0.0,
        learning_rate=4e-4,
        lr_scheduler_type="constant",
        max_steps=UPDATES * steps,
        gradient_checkpointing=False,
        report_to=[],
        logging_strategy="no",
        save_strategy="no",
        disable_tqdm=True,
        model_init_kwargs={"dtype": "float32", "attn_implementation": "sdpa"},
        seed=0,
    )
    data = Dataset.from_dict({"prompt": list(asked)})
    return GRPOTrainer(
        str(folder), reward, args=config, train_dataset=data, processing_class=tokenizer, callbacks=[callback]
    )


class Alternation(TrainerCallback):
    """Times TRL's rollout steps and takes one of ours after each; sampling apart, by wrapping what samples."""

    def __init__(self, ours: Trainer | None):
        self.ours, self.rows = ours, {"ours": [], "trl": []}
        self.sampling = self.tokens = 0.0

    def watch(self, trainer) -> None:
        generate = trainer._generate

        def timed(prompts):
            start = time.perf_counter()
            out = generate(prompts)
            self.sampling += time.perf_counter() - start
            self.tokens += sum(len(ids) for ids in out[1])
            return out

        trainer._generate = timed

    def on_step_begin(self, args, state, control, **_):
        if state.global_step % UPDATES == 0:
            gc.collect()
            self.sampling = self.tokens = 0.0
            self.start = time.perf_counter()

    def on_step_end(self, args, state, control, **_):
        if state.global_step % UPDATES:
            return
        seconds = time.perf_counter() - self.start
        self.rows["trl"].append((seconds, self.sampling, seconds - self.sampling, self.tokens))
        if self.ours is None:
            return
        start = time.perf_counter()
        result = self.ours.step(state.global_step // UPDATES)
        seconds = time.perf_counter() - start
        sampling = result.timings["time/sampling"]
        self.rows["ours"].append((seconds, sampling, seconds - sampling, len(result.rollouts.tokens)))


def alternate(name: str, prompts: int, steps: int, batch: int) -> None:
    setup = SETUPS[name]
    with tempfile.TemporaryDirectory() as root:
        folder = policy_folder(setup, Path(root))
        ours = our_trainer(setup, folder, prompts)
        callback = Alternation(ours)
        trainer = trl_trainer(setup, folder, prompts, steps + 1, batch, callback)
        callback.watch(trainer)
        trainer.train()
    peak, weights = matmul_peak(), sum(p.numel() for p in ours.policy.parameters)
    print(
        f"\n{name}: {setup.what}\n{prompts} prompts × 16, {UPDATES} updates, fp32, {torch.get_num_threads()} threads, ",
        end="",
    )
    print(f"{peak / 1e9:.0f} GFLOP/s peak; medians of {steps} steps after one to warm up")
    print(
        f"{'':8} {'step s':>8} {'sampling tok/s':>15} {'update tok/s':>13} {'tokens':>8} {'floor s':>8} {'of floor':>9}"
    )
    medians = {}
    for side, rows in callback.rows.items():
        seconds, sampling, update, tokens = (statistics.median(column) for column in zip(*rows[1:], strict=True))
        floor = 8 * weights * tokens / peak
        medians[side] = seconds / tokens, sampling / tokens, update / tokens
        print(
            f"{side:8} {seconds:8.2f} {tokens / sampling:15,.0f} {tokens / update:13,.0f} {tokens:8,.0f} {floor:8.2f} "
            f"{floor / seconds:9.1%}"
        )
    ratios = [theirs / own for theirs, own in zip(medians["trl"], medians["ours"], strict=True)]
    print("ratio per token, TRL / ours: step {:.2f}, sampling {:.2f}, update (and scoring) {:.2f}".format(*ratios))


@contextmanager
def peak_memory(into: list[int]):
    """Append the bytes that resident memory rose at most inside the block."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    yield
    into.append(_status("VmHWM") - before)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def memory_of(side: str, name: str, prompts: int, batch: int) -> None:
    """Print the peak of one side's updates, in this process."""
    setup, peaks = SETUPS[name], []
    with tempfile.TemporaryDirectory() as root:
        folder = policy_folder(setup, Path(root))
        if side == "ours":
            trainer = our_trainer(setup, folder, prompts)
            update = trainer._update

            def measured(*arguments):
                with peak_memory(peaks):
                    return update(*arguments)

            trainer._update = measured
            trainer.step(1)
        else:
            trainer = trl_trainer(setup, folder, prompts, 1, batch, Alternation(None))
            compute = trainer._generate_and_score_completions

            def generated(inputs):
                out = compute(inputs)
                gc.collect()
                Path("/proc/self/clear_refs").write_text("5")
                peaks.append(_status("VmRSS"))
                return out

            trainer._generate_and_score_completions = generated
            trainer.train()
            peaks[0] = _status("VmHWM") - peaks[0]
    print(json.dumps(peaks[0]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("setups", nargs="*", choices=[[], *SETUPS], default=[])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--trl-batch", type=int, default=1 << 20, help="responses per micro-batch of TRL")
    parser.add_argument("--memory", choices=["ours", "trl"], help="measure one side's peak memory in this process")
    given = parser.parse_args()
    for name in given.setups or SETUPS:
        if given.memory:
            memory_of(given.memory, name, given.prompts, given.trl_batch)
            continue
        alternate(name, given.prompts, given.steps, given.trl_batch)
        options = [name, "--prompts", str(given.prompts), "--trl-batch", str(given.trl_batch)]
        peaks = {}
        for side in ("ours", "trl"):
            command = [sys.executable, "-m", "tests.benchmarks.trl_cpu", *options, "--memory", side]
            peaks[side] = json.loads(
                subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1]
            )
        print(
            f"peak memory of the updates: ours {peaks['ours'] / 2**20:,.0f} MiB, TRL {peaks['trl'] / 2**20:,.0f} MiB, ",
            end="",
        )
        print(f"ratio {peaks['trl'] / max(1, peaks['ours']):.1f}", flush=True)


if __name__ == "__main__":
    main()
