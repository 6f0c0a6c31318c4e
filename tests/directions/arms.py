"""The runs whose entropy is compared: name -> what differs from plain GRPO on the bundled policy."""

from workbench import preset
from workbench.config import RunConfig

SEEDS = (0, 1, 2)
STEPS = 80
BASE = {
    "name": "directions",
    "training.steps": STEPS,
    "evaluation.sets": [],
    "storage.keep_rollouts_every": STEPS,
    "storage.checkpoint_every": STEPS,
    "storage.keep_checkpoints": 1,
    "storage.measure_change_share": 0,
}
"""The cpu preset, which was calibrated on plain GRPO, for 80 steps; its rate is constant, so they are the first 80 of a
longer run."""
RANDOM_REWARD = {"training.updates_per_rollout": 16, "optimiser.learning_rate": 1e-4, "training.steps": 40}
"""arXiv 2509.26114 makes 16 updates per rollout. The rate was chosen on the symmetric arm with 16 prompts per step: it
clips half a percent of the tokens on either side at 1e-4, and a tenth of that at 3e-5."""


def grpo_and(name: str, **parameters) -> dict:
    return {"methods": ["grpo", {"name": name, **parameters}]}


def random_reward_and(*names: str) -> dict:
    return RANDOM_REWARD | {"methods": ["grpo", {"name": "random_reward"}, *names]}


ARMS: dict[str, dict] = {
    "grpo": {},
    "clip_higher": grpo_and("clip_higher"),
    "clip_lower": grpo_and("clip_lower"),
    "clip_tighter": grpo_and("clip_tighter"),
    "clip_free": grpo_and("clip_free"),
    "grpo N=1": {"training.updates_per_rollout": 1},
    "grpo N=2": {"training.updates_per_rollout": 2},
    "clip_higher N=2": grpo_and("clip_higher") | {"training.updates_per_rollout": 2},
    "A>=0": grpo_and("sign_mask", train="nonnegative"),
    "A<=0": grpo_and("sign_mask", train="nonpositive"),
    "bonus -0.01": grpo_and("entropy_bonus", coefficient=-0.01),
    "bonus 0.002": grpo_and("entropy_bonus", coefficient=0.002),
    "bonus 0.01": grpo_and("entropy_bonus", coefficient=0.01),
    "bonus 0.05": grpo_and("entropy_bonus", coefficient=0.05),
    "adaptive_entropy 0.2": grpo_and("adaptive_entropy", target=0.2),
    "pos_adv_reweight 0.2": grpo_and("pos_adv_reweight", target=0.2),
    "entropic 0.2": grpo_and("entropic", target=0.2),
    "aer 0.4": grpo_and("aer", target_ratio=0.4),
    "aer 0.4, sign rule": grpo_and("aer", target_ratio=0.4, update="sign", maximum=0.5),
    "psr": {"methods": [{"name": "reinforce", "positive": 1.0, "negative": 0.0}]},
    "nsr": {"methods": [{"name": "reinforce", "positive": 0.0, "negative": 1.0}]},
    "w_reinforce": {"methods": [{"name": "reinforce", "positive": 0.1, "negative": 1.0}]},
    "clip_cov": grpo_and("clip_cov"),
    "kl_cov": grpo_and("kl_cov"),
    "random reward": random_reward_and(),
    "random reward + clip_low_only": random_reward_and("clip_low_only"),
    "random reward + clip_high_only": random_reward_and("clip_high_only"),
}

CHECKS: dict[str, dict] = {
    "entropic 0.2, gains of the curves": grpo_and("entropic", target=0.2, proportional=5.0, integral=0.03),
    "pos_adv_reweight 0.2, Δ = 0.25": grpo_and("pos_adv_reweight", target=0.2, delta=0.25),
    "aer 0.4, sign rule, all prompts": grpo_and(
        "aer", target_ratio=0.4, update="sign", maximum=0.5, weighting="uniform"
    ),
}
"""Runs that say why a controller missed its target: the gains that fit EntroPIC's published curves instead of its
script's, λ as fast over 80 steps as published over 402, and AER's bonus on all prompts instead of the hard ones."""


def config(arm: str, seed: int) -> RunConfig:
    return preset("cpu", BASE | (ARMS | CHECKS)[arm] | {"seed": seed})
