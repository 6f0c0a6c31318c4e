"""One file per published method. `base.py` holds the seams, `statistics.py` what may be computed over a batch."""

from workbench.methods import grpo, pos_adv_reweight
from workbench.methods.base import Method, register
from workbench.methods.composition import Composition

__all__ = ["Composition", "Method", "grpo", "pos_adv_reweight", "register"]
