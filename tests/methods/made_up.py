"""A made-up rollout batch in fp64 on a tiny policy, and one update on it, for tests that go over all methods."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tests.methods.cases.case import Case
from tests.tiny import tiny_policy
from workbench import ranks
from workbench.config import RunConfig, make_config
from workbench.methods import Composition, Progress
from workbench.methods.statistics import token_key
from workbench.policy.sharding import full
from workbench.rollout import NativeEngine, Stream
from workbench.tables import Rollouts
from workbench.training.advantages import assign_advantages
from workbench.training.critic import Critic
from workbench.training.update import OLD, accumulate_gradient, old_columns, score_in_parts

PROMPTS = [torch.tensor(ids) for ids in ([1, 2, 3], [4], [5, 6, 7, 8, 9], [2, 2], [3, 9], [7, 1, 1])]
SAMPLES, LONGEST = 4, 9
CORRECT = [[1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 1], [0, 1, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1]]
"""One group all correct, one all wrong, the others mixed."""
PROGRESS = Progress(seed=3, step=2, steps=10, epoch=1, epochs=2, update=1, updates=2, max_new_tokens=LONGEST)


def double_policy(seed=0):
    policy = tiny_policy(seed=seed)
    policy.model.double()
    policy.precision = torch.float64
    return policy


def made_up_rollouts(policy, noise=0.5, seed=1) -> Rollouts:
    """Scored and verified, not yet given advantages; old, sampled and reference log-probs `noise` nats away from the
    policy's own, so that ratios, clips and corrections are all in play. Some responses have length 1."""
    single = tiny_policy()
    r = NativeEngine(single).generate(PROMPTS, SAMPLES, torch.ones(len(PROMPTS)), LONGEST, Stream(seed, 1))
    assert (r.sequences.length == 1).any() and (r.sequences.length > 5).any()
    correct = torch.tensor(CORRECT, dtype=torch.bool).flatten()
    letters = "".join(chr(97 + i) for i in range(13))
    r = r.with_sequences(
        prompt_id=r.sequences.prompt + 100,
        score_temperature=r.sequences.temperature,
        correct=correct,
        reward=correct.double(),
        prompt_text=[letters[int(i)] for i in r.sequences.prompt],
        text=[letters[: int(n)] for n in r.sequences.length],
        answer=[letters[int(n) % 3] for n in r.sequences.length],
    )
    g = torch.Generator().manual_seed(seed)
    gaps = noise * torch.randn(3, len(r.tokens), generator=g, dtype=torch.float64)
    now = score_in_parts(policy, r, 4096, with_sums=True)
    assert now.logp.dtype == torch.float64
    return r.with_tokens(
        old_logp=now.logp + gaps[0],
        rollout_logp=now.logp + gaps[0] + 0.2 * gaps[1],
        ref_logp=now.logp + gaps[2],
        entropy=now.entropy,
        expected_discriminator=now.entropy * now.sum_p2 + now.sum_p2_logp,
    )


def on_policy(policy, rollouts: Rollouts, known: bool) -> Rollouts:
    """The same, old log-probs being the policy's own: attached, or left to the update to find."""
    if known:
        return rollouts.with_tokens(**old_columns(score_in_parts(policy, rollouts, 4096, with_sums=True)))
    return replace(rollouts, tokens=rollouts.tokens.without(*OLD))


def made_up_critic(methods: Composition) -> Critic | None:
    """The critic the methods ask for, with output layers and a reference drawn at random; the same for every call.
    Divided among the ranks, if there are many."""
    config = methods.critic()
    if config is None:
        return None
    critic = Critic(double_policy(), config, 10, double_policy(seed=1))
    draw = torch.Generator().manual_seed(7)
    for net in (critic.net, critic.target):
        if net is not None:
            weight = net.model.get_output_embeddings().weight
            weight.data.copy_(torch.randn(weight.shape, generator=draw, dtype=weight.dtype))
    for net in (critic.net, critic.target, critic.reference) if ranks.count() > 1 else ():
        if net is not None:
            net.divide("cpu")
    return critic


@dataclass
class Update:
    """One update: its loss, gradients, and what was decided per token and per response, in the order of their keys."""

    loss: float
    gradients: list[Tensor]
    tokens: dict[str, Tensor]
    measures: dict[str, float]


def config_of(methods: list, extra: dict | None = None, budget: int = 10**6) -> RunConfig:
    base = {"rollout.prompts": 6, "rollout.samples": 4, "training.updates_per_rollout": 2, "evaluation.sets": []}
    return make_config({}, base | {"methods": methods, "training.micro_batch_tokens": budget} | (extra or {}))


def methods_of(name: str, case: Case, parameters: dict | None = None) -> list:
    return [*case.without, {"name": name, **(case.acting if parameters is None else parameters)}]


def update_on(policy, rollouts: Rollouts, config: RunConfig) -> Update:
    """Rewards, advantages, selections and the gradient of one mini-batch made of the whole batch."""
    methods = Composition(config.build_methods())
    methods.begin(PROGRESS)
    critic = made_up_critic(methods)
    if critic is not None:
        rollouts = rollouts.with_tokens(**critic.columns(policy, rollouts, config.training.micro_batch_tokens))
    rollouts = assign_advantages(rollouts, methods)
    methods.look(rollouts)
    batch = rollouts.select_sequences(methods.keep(rollouts))
    budget = config.training.micro_batch_tokens
    batch, loss = accumulate_gradient(policy, batch, methods, config.objective, budget, LONGEST, critic)
    gradients = [full(p.grad).clone() for p in policy.parameters]
    policy.model.zero_grad()
    order = token_key(batch).argsort()
    columns = {name: column[order] for name, column in batch.tokens.items() if name != "sequence"}
    return Update(loss, gradients, columns | {"key": token_key(batch)[order]}, methods.measures())


def assert_same(one: Update, other: Update, tolerance: float = 1e-12) -> None:
    assert abs(one.loss - other.loss) <= tolerance * max(1.0, abs(one.loss))
    for a, b in zip(one.gradients, other.gradients, strict=True):
        assert (a - b).norm() <= tolerance * max(1.0, a.norm())
    assert set(one.tokens) == set(other.tokens)
    for name, column in one.tokens.items():
        torch.testing.assert_close(column, other.tokens[name], rtol=tolerance, atol=tolerance, equal_nan=True)
    assert one.measures.keys() == other.measures.keys()
    for name, value in one.measures.items():
        assert abs(value - other.measures[name]) <= tolerance * max(1.0, abs(value)), name
