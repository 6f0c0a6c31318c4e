"""A paper's finding as code: claims, their evaluation over seeds, and the table that shows both.

The unit of replication is the seed: an effect is one number per seed, paired where it compares arms, and its interval
is the 95 % t interval of the mean. A claim is *reproduced* when the whole interval lies in the region it claims,
*contradicted* when the whole interval lies outside, *inconclusive* otherwise and whenever there is one seed only, and
*not run* when an arm has no finished run or did not record what is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from workbench.study.effects import Effect, Measured, NotMeasured, Region

LEVEL = 0.95


@dataclass(frozen=True)
class Claim:
    """A finding: `identifier`, the `sentence` in our own words, the `source` (paper and figure), and the effect.

    `published` is the effect's value in the source where there is one; `kind` says whether the source states it
    strongly ("strong"), weakly ("weak"), or whether it is expected here without being claimed there ("expected").
    `reading` is what looking into a contradiction at `scale=cpu` found; it is shown with that verdict only.
    """

    identifier: str
    sentence: str
    source: str
    effect: Effect
    published: float | None = None
    kind: str = "strong"
    reading: str = ""

    @property
    def arms(self) -> tuple[str, ...]:
        return self.effect.arms


@dataclass(frozen=True)
class Finding:
    """A claim evaluated: the effect of every seed, mean and interval, and the verdict. `recorded` of the seeds have no
    runs here, `p` is the one-sided p-value of the claim against its opposite; `reason` says why there is no verdict."""

    claim: Claim
    verdict: str
    seeds: tuple[int, ...] = ()
    values: tuple[float, ...] = ()
    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan
    reason: str = ""
    recorded: int = 0


def interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float]:
    """The t interval of the mean of values [seeds]; (NaN, NaN) for fewer than two, which say nothing about seeds."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return math.nan, math.nan
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1)) * values.std(ddof=1) / len(values) ** 0.5
    return values.mean() - half, values.mean() + half


def verdict(region: Region, low: float, high: float) -> str:
    """Reproduced: the interval is inside the claimed region; contradicted: it is outside; inconclusive: neither."""
    if low > region[0] and high < region[1]:
        return "reproduced"
    return "contradicted" if high < region[0] or low > region[1] else "inconclusive"


def p_value(region: Region, values: Sequence[float]) -> float:
    """One-sided p-value of "the mean lies in the region" against its opposite: the larger one of the t tests against
    both ends (two one-sided tests). It is below 0.025 exactly where the 95 % interval is inside."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return math.nan
    error = values.std(ddof=1) / len(values) ** 0.5
    distance = min(values.mean() - region[0], region[1] - values.mean())
    if error == 0:
        return 0.0 if distance > 0 else 1.0
    return float(stats.t.sf(distance / error, len(values) - 1))


def evaluate(claim: Claim, runs: Measured, recorded: Mapping[int, float] | None = None) -> Finding:
    """Compute the claim's effect for every seed that all its arms have, and judge it; of the other seeds their
    `recorded` values count."""
    try:
        here = set.intersection(*(runs.seeds(arm) for arm in claim.arms))
        by_seed = {**(recorded or {}), **{seed: claim.effect.of(runs, seed) for seed in here}}
        if not by_seed:
            lacking = [arm for arm in claim.arms if not runs.seeds(arm)] or ["a common seed"]
            raise NotMeasured(f"no finished run of {', '.join(lacking)}")
    except NotMeasured as missing:
        return Finding(claim, "not run", reason=str(missing))
    seeds, values = zip(*sorted(by_seed.items()), strict=True)
    recorded = len(set(seeds) - here)
    if not np.isfinite(values).all():
        reason = "the effect is undefined: a metric has no values"
        return Finding(claim, "not run", seeds, values, reason=reason, recorded=recorded)
    low, high = interval(values)
    mean, p = float(np.mean(values)), p_value(claim.effect.region, values)
    judged, reason = verdict(claim.effect.region, low, high), ""
    if len(seeds) < 2:
        judged, reason = "inconclusive", "one seed has no interval"
    return Finding(claim, judged, seeds, values, mean, low, high, p, reason, recorded)


def holm(p_values: Sequence[float], level: float = (1 - LEVEL) / 2) -> np.ndarray:
    """Which of p_values [m] stay significant when all are tested together (Holm 1979): bool [m]; NaN never does."""
    p = np.asarray(p_values, dtype=float)
    kept, tested = np.zeros(len(p), dtype=bool), int(np.isfinite(p).sum())
    for rank, index in enumerate(np.argsort(p)[:tested]):
        if p[index] > level / (tested - rank):
            break
        kept[index] = True
    return kept


def claims_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """One row per claim: claim, sentence, source, prediction, effect, published, measured, low, high, seeds, verdict,
    `holm` (whether a reproduced claim survives the correction for this table's claims), reason and reading."""
    findings = list(findings)
    survives = holm([f.p for f in findings])
    rows = [
        {
            "claim": f.claim.identifier,
            "sentence": f.claim.sentence,
            "source": f.claim.source,
            "prediction": str(f.claim.effect),
            "effect": f.claim.effect.unit,
            "published": f.claim.published,
            "measured": f.mean,
            "low": f.low,
            "high": f.high,
            "seeds": len(f.seeds),
            "verdict": f.verdict,
            "holm": bool(kept),
            "reason": f.reason,
            "reading": f.claim.reading,
        }
        for f, kept in zip(findings, survives, strict=True)
    ]
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else ["claim", "verdict"])


def comparison_note(findings: Iterable[Finding]) -> str:
    """What testing many claims at once means for this table, in words."""
    findings = [f for f in findings if math.isfinite(f.p)]
    if not findings:
        return "No claim has two seeds yet, so there is no verdict to correct."
    reproduced = [f.verdict == "reproduced" for f in findings]
    survive = int(holm([f.p for f in findings]).sum())
    chance = len(findings) * (1 - LEVEL) / 2
    return (
        f"{len(findings)} claims were tested at 95 % each. Had none of the effects existed, about {chance:.1f} would "
        f"have come out as reproduced by chance and as many as contradicted. {sum(reproduced)} were reproduced; "
        f"{survive} of them remain after Holm's correction for all {len(findings)}."
    )
