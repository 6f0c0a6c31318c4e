"""Series over rollout steps: smoothing."""

from __future__ import annotations

import math

import numpy as np

EMA_PHI = 0.6
"""Share of the past in the smoothed entropy of arXiv 2511.05993."""


def ema(values, phi: float = EMA_PHI) -> np.ndarray:
    """E_k = (1 − φ)·H_k + φ·E_{k−1}, E_1 = H_1: the smoothing of arXiv 2511.05993 (S; the start E_1 is (I)).

    values: float [n], in the order of the steps; returns float64 [n] in the same unit. NaN entries carry E forward;
    NaN before the first number stays NaN. Published final entropies are E at the last step.
    """
    values = np.asarray(values, dtype=float)
    smooth = np.empty_like(values)
    state = math.nan
    for index, value in enumerate(values.tolist()):
        smooth[index] = state = ema_next(state, value, phi)
    return smooth


def ema_next(state: float, value: float, phi: float = EMA_PHI) -> float:
    """E_k from E_{k−1} (NaN before the first) and H_k."""
    if math.isnan(value):
        return state
    return value if math.isnan(state) else (1 - phi) * value + phi * state
