"""ERPO: prompts that are always solved keep a training signal and are sampled hotter the next time."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Literal

import torch
from pydantic import Field, PrivateAttr
from torch import Tensor

from workbench.methods import statistics
from workbench.methods.base import Method, register
from workbench.methods.grpo import group_normalised, refuse_single_samples
from workbench.tables import Rollouts, Table


def with_pseudo_sample(rollouts: Rollouts, reward: Tensor, pseudo: float, epsilon: float) -> Tensor:
    """Rewards [S] normalised by the statistics of their group and one more reward `pseudo`, which has no tokens:

        A_i = (R_i − mean(R⁺)) / (std(R⁺) + ε), R⁺ = {R_1 … R_G, pseudo}, std the unbiased one of G + 1 values

    0 where all of R⁺ are equal. When R is constant and above `pseudo`, A = 1/√(G + 1) whatever the scale.
    """
    size = rollouts.group_size()
    mean = (size * rollouts.group_mean(reward) + pseudo) / (size + 1)
    variance = rollouts.group_mean((reward - mean).square()) + (pseudo - mean).square() / size
    advantage = (reward - mean) / (variance.sqrt() + epsilon)
    return advantage.masked_fill(rollouts.group_is_constant(reward) & (reward == pseudo), 0.0)


@register
class Erpo(Method):
    """GRPO that learns from prompts solved by every response, and samples them hotter at each further visit.

        all G responses of q correct:  A_i as if a wrong response stood beside them (`with_pseudo_sample`); c[q] += 1
        all wrong:                     A_i = 0, dropped or kept; c[q] unchanged
        mixed:                         A_i as in grpo; c[q] unchanged (hold), 0 (reset) or 1 less (decrement)
        sampling temperature of q:     min(T + temperature_step · c[q], temperature_max), T = rollout.temperature

    arXiv 2511.04800 (S in outline: pseudo-negative, history per prompt, cap T_max; the formula and every constant are
    reconstructed (I), no code was read). "Correct" is the verifier's verdict, rewards may be shaped. c moves with the
    groups of the batch that is trained on; a prompt seen twice in one moves twice. With `max_rounds` above 1, all-wrong
    groups are sampled anew and all-correct ones count as filled (I). Nothing is differentiated.

    The source does not say at which temperature hot responses are trained. `training.score_temperature` decides:
    `sampling` divides the logits by each response's own, so the surrogate is on-policy for the tempered policy; `base`
    (with `training.old_logp` trainer) takes T for old and new log-probs alike and ignores the mismatch, which is most
    likely what the paper does (I); `base` together with method `tis` weighs tokens by π_T/π_{T_q}, capped.

    `ra` off, `temperature_step` 0 and `all_wrong` keep is grpo.
    """

    name: ClassVar[str] = "erpo"
    paper: ClassVar[str] = "2511.04800"

    epsilon: float = Field(1e-6, gt=0, description="added to the group's standard deviation")
    ra: bool = Field(True, description="a pseudo-negative in the statistics of all-correct groups")
    pseudo_reward: float = Field(0.0, description="(I) the pseudo-negative's reward: that of a wrong answer")
    temperature_step: float = Field(0.1, ge=0, description="(I) rise per earlier all-correct visit; 0 is off")
    temperature_max: float = Field(1.3, gt=0, le=10, description="(I) T_max, the hottest a prompt is sampled")
    counts: Literal["hold", "reset", "decrement"] = Field("hold", description="(I) what a mixed group does to c")
    all_wrong: Literal["drop", "keep"] = Field("drop", description="all-wrong groups: out of the update, or A = 0")
    max_rounds: int = Field(1, ge=1, description="sampling rounds of a step that replace dropped groups; DAPO: 10")

    _counts: dict[str, int] = PrivateAttr(default_factory=dict)
    _measures: dict[str, float] = PrivateAttr(default_factory=dict)

    def check(self, config) -> None:
        refuse_single_samples(self.name, config)
        if self.temperature_step and self.temperature_max < config.rollout.temperature:
            raise ValueError(
                f"erpo.temperature_max ({self.temperature_max}) is below rollout.temperature "
                f"({config.rollout.temperature}), where every prompt starts; raise it"
            )
        if any(m["name"] == "dynamic_sampling" for m in config.methods):
            raise ValueError(
                "dynamic_sampling drops the all-correct groups erpo learns from and counts; remove it and set "
                "erpo.max_rounds instead"
            )

    def cautions(self, config) -> list[str]:
        said = []
        if self.temperature_step and config.training.steps * config.rollout.prompts <= config.task.train_size:
            said.append(
                "erpo.temperature_step is inert in a run of a single epoch, which draws no prompt twice; lower "
                "task.train_size or raise training.steps"
            )
        if self.max_rounds > 1 and self.all_wrong == "keep":
            said.append("erpo.max_rounds is inert with erpo.all_wrong 'keep': nothing is dropped, nothing replaced")
        return said

    def temperature(self, prompts: Table, temperature: Tensor) -> Tensor:
        if not self.temperature_step:
            return temperature
        visits = temperature.new_tensor([self._counts.get(str(i), 0) for i in prompts.id.tolist()])
        return (temperature + self.temperature_step * visits).clamp(max=self.temperature_max)

    def rounds(self) -> int:
        return self.max_rounds if self.all_wrong == "drop" else 1

    def accept(self, rollouts: Rollouts, accept: Tensor) -> Tensor:
        return accept & ~_solved(rollouts)[1] if self.all_wrong == "drop" else accept

    def baseline(self, rollouts: Rollouts) -> Tensor:
        reward = rollouts.sequences.reward
        all_correct, all_wrong = _solved(rollouts)
        self._measures = self._shares(rollouts, all_correct, all_wrong)
        if self.temperature_step:
            self._count(rollouts, all_correct, all_wrong)
        advantage = group_normalised(rollouts, reward, self.epsilon)
        if not self.ra:
            return advantage
        return torch.where(
            all_correct, with_pseudo_sample(rollouts, reward, self.pseudo_reward, self.epsilon), advantage
        )

    def keep(self, rollouts: Rollouts, keep: Tensor) -> Tensor:
        return keep & ~_solved(rollouts)[1] if self.all_wrong == "drop" else keep

    def _shares(self, rollouts: Rollouts, all_correct: Tensor, all_wrong: Tensor) -> dict[str, float]:
        """Shares of the groups, which are of one size, and of those sampled hotter how many are mixed."""
        mixed = ~(all_correct | all_wrong)
        kinds = {"all_correct": all_correct, "all_wrong": all_wrong, "mixed": mixed}
        shares = {name: float(statistics.mean(kind)) for name, kind in kinds.items()}
        if not self.temperature_step:
            return shares
        shares["temperature"] = float(statistics.mean(rollouts.sequences.temperature))
        visited = [self._counts.get(str(i), 0) > 0 for i in rollouts.sequences.prompt_id.tolist()]
        hotter = torch.tensor(visited, dtype=torch.bool, device=mixed.device)
        if statistics.total(hotter):
            shares["reactivated"] = float(statistics.mean(mixed, hotter))
        return shares

    def _count(self, rollouts: Rollouts, all_correct: Tensor, all_wrong: Tensor) -> None:
        """Move c by the groups, once per group; the same in any order of the groups."""
        first = rollouts.sequences.sample == 0
        prompt = rollouts.sequences.prompt_id[first].tolist()
        kind = (all_correct.long() - all_wrong.long())[first].tolist()
        solved = Counter(p for p, k in zip(prompt, kind, strict=True) if k == 1)
        mixed = Counter(p for p, k in zip(prompt, kind, strict=True) if k == 0)
        for p in sorted(solved.keys() | mixed.keys()):
            count = self._counts.get(str(p), 0) + solved[p]
            if mixed[p] and self.counts != "hold":
                count = 0 if self.counts == "reset" else max(0, count - mixed[p])
            self._counts[str(p)] = count

    def measures(self) -> dict[str, float]:
        return dict(self._measures)


def _solved(rollouts: Rollouts) -> tuple[Tensor, Tensor]:
    """Whether all of a sequence's group are correct, and whether none is [S] bool."""
    correct = rollouts.sequences.correct
    uniform = rollouts.group_is_constant(correct.to(rollouts.sequences.reward.dtype))
    return uniform & correct, uniform & ~correct
