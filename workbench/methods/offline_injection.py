"""Offline sample injection: solutions from a file take the place of failed responses to prompts that are too hard."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from workbench.methods import statistics
from workbench.methods.base import Method, register
from workbench.tables import Rollouts, Table


def read_solutions(path: str | Path) -> dict[str, list[str]]:
    """Prompt -> its solutions, in file order, from a JSON-lines file of {"prompt": …, "solution": …}.

    Raises `ValueError` that names the file, the line and what is wrong with it: unreadable, not JSON, other keys, not
    text, empty; or a file without a line.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"offline solutions '{path}' cannot be read: {error}") from None
    solutions: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            prompt, solution = _entry(line, f"offline solutions '{path}', line {number}")
            solutions.setdefault(prompt, []).append(solution)
    if not solutions:
        raise ValueError(f"offline solutions '{path}' has no line; write one JSON object per line")
    return solutions


def _entry(line: str, where: str) -> tuple[str, str]:
    try:
        entry = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        raise ValueError(f"{where}: not a JSON object") from None
    if not isinstance(entry, dict) or set(entry) != {"prompt", "solution"}:
        raise ValueError(f"{where}: must be an object with exactly the keys 'prompt' and 'solution'")
    for key in ("prompt", "solution"):
        if not isinstance(entry[key], str) or not entry[key].strip():
            raise ValueError(f"{where}: '{key}' must be a text that is not empty")
        try:
            entry[key].encode()
        except UnicodeEncodeError:
            raise ValueError(f"{where}: '{key}' has half a surrogate pair, which is no text") from None
    return entry["prompt"], entry["solution"]


@lru_cache(maxsize=8)
def _cached(path: str, _modified: int) -> dict[str, list[str]]:
    return read_solutions(path)


def solutions_of(path: str) -> dict[str, list[str]]:
    """`read_solutions`, once per version of the file."""
    return _cached(path, Path(path).stat().st_mtime_ns) if Path(path).exists() else read_solutions(path)


@register
class OfflineInjection(Method):
    """Failed responses to prompts solved at most `threshold` of the time give way to solutions from a file.

        g(q) ≤ threshold: the first min(#incorrect, #solutions of q, cap) incorrect responses are replaced
        loss plain: unchanged;   luffy: on-policy tokens −A·r without clipping, offline tokens −A·π/(π + 0.1)

    arXiv 2506.04913, OSI (S): threshold 0.125; log-probs of the policy before the update and rewards are taken after
    the replacement, then the baseline as usual, so offline tokens start at ratio 1. The scripts' luffy loss sums over
    tokens and divides by the longest length: `objective.denominator` constant. Differentiable in π; offline-ness is
    detached. Their penalty on repetition and their A = 0 for responses cut off while repeating are left out.

    The file has one {"prompt": …, "solution": …} per line; prompts are compared as text, and solutions are verified
    like any response. `ValueError` at the first step if the file is missing or malformed; a stored run is read without
    it. The run's identity holds the path, not the file's content. Without a path it is the run without the method.
    """

    name: ClassVar[str] = "offline_injection"
    paper: ClassVar[str] = "2506.04913, OSI"

    path: str = Field("", description="JSON-lines file of prompts and solutions; '' is off")
    threshold: float = Field(0.125, ge=0, lt=1, description="group accuracy up to which responses are replaced")
    cap: int = Field(0, ge=0, description="most responses replaced per prompt; 0 is no bound")
    loss: Literal["plain", "luffy"] = Field("plain", description="surrogate of the run")

    _fraction: float = PrivateAttr(0.0)

    def exclusive(self) -> set[str]:
        return {"clip", "surrogate"} if self.path and self.loss == "luffy" else set()

    def begin(self, progress) -> None:
        super().begin(progress)
        if self.path:  # not in `check`: a stored run is read without its file
            solutions_of(self.path)

    def check(self, config) -> None:
        if self.path and config.training.old_logp != "trainer":
            raise ValueError(
                "offline_injection brings in responses the sampler has no log-probs of; set training.old_logp to "
                "'trainer'"
            )

    def cautions(self, config) -> list[str]:
        if not self.path:
            return []
        said = []
        try:
            solutions_of(self.path)
        except ValueError as error:
            said.append(f"training will stop at its first step: {error}")
        if self.loss == "luffy" and config.objective.denominator != "constant":
            said.append(
                "offline_injection's luffy loss divides by a constant; objective.denominator is "
                f"'{config.objective.denominator}'"
            )
        return said

    def inject(self, rollouts: Rollouts) -> dict[int, str]:
        if not self.path:
            return {}
        solutions, sequences = solutions_of(self.path), rollouts.sequences
        hard = rollouts.group_mean(sequences.correct.to(sequences.temperature.dtype)) <= self.threshold
        used: dict[int, int] = {}
        chosen: dict[int, str] = {}
        for row in (hard & ~sequences.correct).nonzero().squeeze(1).tolist():
            group, offered = int(sequences.group[row]), solutions.get(sequences.prompt_text[row], [])
            count = used.get(group, 0)
            if count < min(len(offered), self.cap or len(offered)):
                chosen[row] = offered[count]
                used[group] = count + 1
        return chosen

    def look(self, rollouts: Rollouts) -> None:
        if self.path:
            self._fraction = float(statistics.mean(_offline(rollouts)))

    def clip(self, batch: Rollouts, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        if "clip" not in self.exclusive():
            return low, high
        return torch.ones_like(low), torch.full_like(high, math.inf)

    def mark(self, batch: Rollouts) -> dict[str, Tensor]:
        if "surrogate" not in self.exclusive():
            return {}
        return {"offline_injection_offline": batch.broadcast_to_tokens(_offline(batch))}

    def surrogate(self, tokens: Table, ratio: Tensor, logp: Tensor) -> Tensor | None:
        if "surrogate" not in self.exclusive():
            return None
        probability = logp.exp()
        shaped = probability / (probability + 0.1)
        return -tokens.advantage * torch.where(tokens.offline_injection_offline, shaped, ratio)

    def measures(self) -> dict[str, float]:
        return {"offline_fraction": self._fraction}


def _offline(rollouts: Rollouts) -> Tensor:
    """Mask [S] of responses that came from a file."""
    correct = rollouts.sequences.correct
    return rollouts.sequences.offline if "offline" in rollouts.sequences else torch.zeros_like(correct)
