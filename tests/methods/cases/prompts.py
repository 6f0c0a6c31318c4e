"""Cases of the methods that choose prompts and responses, and of those that shape rewards and advantages."""

from pathlib import Path

from tests.methods.cases.case import Case

SOLUTIONS = Path(__file__).parent / "reduce_solutions.jsonl"
"""Two solutions each of the training prompts of preset smoke."""

CASES = {
    "aer": Case(acting={"initial": 0.04, "normalise": True}, neutral={"rate": 0.0}),
    "erpo": Case(
        neutral={"ra": False, "temperature_step": 0.0, "all_wrong": "keep"}, without=(), config={"task.train_size": 16}
    ),
    "length_reward": Case(acting={"threshold": 0.5, "base": 10.0}, neutral={"base": float("inf")}),
    "offline_injection": Case(
        acting={"path": str(SOLUTIONS), "loss": "luffy"}, neutral={"path": ""}, config={"training.old_logp": "trainer"}
    ),
    "perplexity_shaping": Case(acting={"strength": 0.1}, neutral={"strength": 0.0}),
    "position_shaping": Case(neutral={"strength": 0.0}),
    "prepo": Case(neutral={"schedule": "off", "relative_entropy": False}),
    "random_reward": Case(neutral={"law": "none"}),
    "sample_polarity": Case(acting={"reserve_ratio": 0.3}, neutral={"train": "both"}),
}
