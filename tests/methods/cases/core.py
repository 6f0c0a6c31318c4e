"""Cases of the group baselines, objectives, and the methods of arXiv 2511.05993."""

from tests.methods.cases.case import Case

BOUNDS_AS_CONFIGURED = {"low": 0.2, "high": 0.2}
SCORED = {"training.old_logp": "trainer"}

CASES = {
    "adaptive_entropy": Case(
        acting={"initial": 0.1, "target": 9.0}, neutral={"delta": 0.0}, observes=({"entropy/mean": 0.1},)
    ),
    "cispo": Case(acting={"high": 0.5}),
    "clip_cov": Case(acting={"fraction": 0.05, "low": 0.1}, neutral={"fraction": 0.0}),
    "clip_free": Case(neutral=BOUNDS_AS_CONFIGURED),
    "clip_high_only": Case(neutral=BOUNDS_AS_CONFIGURED),
    "clip_higher": Case(acting={"high": 0.5}, neutral=BOUNDS_AS_CONFIGURED),
    "clip_low_only": Case(neutral=BOUNDS_AS_CONFIGURED),
    "clip_lower": Case(neutral=BOUNDS_AS_CONFIGURED),
    "clip_tighter": Case(acting={"low": 0.05}, neutral=BOUNDS_AS_CONFIGURED),
    "dr_grpo": Case(without=()),
    "dual_clip": Case(acting={"c": 1.5}, neutral={"c": float("inf")}),
    "dynamic_sampling": Case(acting={"max_rounds": 3}, neutral={"max_rounds": 1, "drop": False}),
    "entropy_adv": Case(neutral={"alpha": 0.0}),
    "entropy_bonus": Case(acting={"coefficient": 0.1}, neutral={"coefficient": 0.0}),
    "grpo": Case(without=()),
    "gspo": Case(),
    "kl_cov": Case(acting={"fraction": 0.1}, neutral={"fraction": 0.0, "ppo_clip": "objective"}),
    "kl_reference": Case(acting={"coefficient": 0.5}, neutral={"coefficient": 0.0}),
    "pos_adv_reweight": Case(acting={"initial": 0.3}, neutral={"initial": 1.0, "delta": 0.0}),
    "rand_pos_clip": Case(acting={"fraction": 0.1}, neutral={"fraction": 0.0}),
    "reinforce": Case(acting={"positive": 0.1}, without=()),
    "rloo": Case(without=()),
    "sign_mask": Case(neutral={"train": "all"}),
    "soft_overlong": Case(acting={"buffer": 0.8}, neutral={"penalty": 0.0}),
    "tis": Case(neutral={"cap": 1.0, "floor": 1.0}, config=SCORED),
}
