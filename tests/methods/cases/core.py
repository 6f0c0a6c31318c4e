"""Cases of the group baselines, objectives, and the methods of arXiv 2511.05993."""

from tests.methods.cases.case import Case

CASES = {
    "grpo": Case(without=()),
    "kl_reference": Case(acting={"coefficient": 0.5}, neutral={"coefficient": 0.0}),
    "pos_adv_reweight": Case(acting={"initial": 0.3}, neutral={"initial": 1.0, "delta": 0.0}),
}
