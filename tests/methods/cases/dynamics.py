"""Cases of the methods that reason about the entropy change of single tokens, and of SENT and EntroPIC."""

from tests.methods.cases.case import Case

CASES = {
    "clip_b": Case(acting={"mu": 0.5}, neutral={"mu": float("inf")}),
    "clip_v": Case(acting={"mu": 0.5, "max_fraction": 0.05}, neutral={"mu": float("inf")}),
    "discriminator_arms": Case(acting={"positive": "below"}, neutral={}),
    "entropic": Case(acting={"target": 0.5, "threshold": 0.3}, neutral={"proportional": 0.0, "integral": 0.0}),
    "flexible_entropy": Case(neutral={"intercept": 0.2, "slope": 0.0}),
    "high_entropy_mask": Case(neutral={"fraction": 1.0}),
    "semantic_curriculum": Case(neutral={"stages": 1}),
    "sent_kl": Case(acting={"high_cov_share": 0.05}, neutral={"low_entropy_kl": False, "high_cov_boost": False}),
    "steer": Case(neutral={"lowest": 1.0}),
}
