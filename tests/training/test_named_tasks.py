"""A named data set in the training loop: its prompts reach the policy in their template, its verifier judges."""

from pathlib import Path

import workbench as wb
from workbench.training import train_run
from workbench.training.evaluation import Evaluation
from workbench.training.trainer import Trainer

DATA = Path(__file__).parent.parent / "data"


def test_a_rollout_step_and_an_evaluation_on_mathematics():
    settings = {
        "task.name": f"math/dapo?path={DATA / 'dapo.parquet'}",
        "task.prompt_template": "1+1=2#{prompt}=",
        "rollout.max_new_tokens": 6,
        "evaluation.sets": [],
    }
    trainer = Trainer(wb.preset("smoke", settings))
    assert len(trainer.collector.prompts) == 24
    step = trainer.step(1)
    sequences = step.rollouts.sequences
    asked = [trainer.collector.prompts[i] for i in step.rollouts.sequences.prompt_id.tolist()]
    assert sequences.prompt_text == [prompt.text for prompt in asked]
    shown = trainer.policy.encode(f"1+1=2#{asked[0].text}=")
    assert step.rollouts.prompts[sequences.prompt[0]].equal(shown)
    assert set(sequences.reward.tolist()) <= {0.0, 1.0} and not sequences.boxed.any() and sequences.judged.all()


def test_a_run_says_which_evaluation_prompts_it_trains_on_and_what_it_cannot_read(tmp_path):
    (tmp_path / "other.jsonl").write_text('{"problem": "1+1=", "answer": "2"}\n{"problem": "ab: 3-2=", "answer": "1"}')
    trained, other = (f"math/math?path={path}" for path in (DATA / "math.jsonl", tmp_path / "other.jsonl"))
    settings = {
        "task.name": trained,
        "task.train_size": 24,
        "rollout.max_new_tokens": 4,
        "training.steps": 1,
        "evaluation.sets": [trained, other],
        "evaluation.samples": 1,
        "evaluation.max_new_tokens": 4,
    }
    lines = []
    train_run(wb.preset("smoke", settings), tmp_path, log=lines.append)
    said = [line for line in lines if line.startswith("caution")]
    assert sum("8 of the 8 prompts of evaluation set" in line and "are trained on" in line for line in said) == 1
    assert any(f"characters of '{other}'" in line for line in said)


def test_an_evaluation_set_smaller_than_asked_gives_all_it_has():
    name = f"math/amc23?path={DATA / 'amc23.jsonl'}"
    policy = Trainer(wb.preset("smoke", {"evaluation.sets": []})).policy
    evaluation = Evaluation(name, prompts=99, samples=2, temperature=1.0, seed=0, step=0, max_new_tokens=6)
    samples = evaluation.sample(policy)
    assert len(samples) == 48 and set(samples.set) == {name} and samples.length.max() <= 6
