"""What holds for every registered method: it acts, it can be neutral, and no split of the batch changes anything."""

import json

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import workbench as wb
from tests.methods.cases import CASES
from tests.methods.made_up import (
    assert_same,
    config_of,
    double_policy,
    made_up_rollouts,
    methods_of,
    on_policy,
    update_on,
)
from workbench.config import BUNDLES, METHODS
from workbench.methods import Composition
from workbench.methods.base import Method
from workbench.store import Run
from workbench.training import train_run

ON_THE_BATCH = {
    "reward", "keep", "baseline", "advantage", "clip", "mask", "weight", "mark", "ratio", "surrogate", "regulariser"
}  # fmt: skip
"""Hooks that change the update of a given batch; the others act before there is one."""
BEFORE_THE_BATCH = {"pool", "candidates", "select", "temperature", "inject", "rounds", "accept"}
BASELINES = {name for name, method in METHODS.items() if method.baseline is not Method.baseline}
NEUTRAL = [name for name, case in CASES.items() if case.neutral is not None]


def hooks_of(name: str) -> set[str]:
    hooks = {key for key, value in vars(Method).items() if callable(value) and not key.startswith("_")}
    return {hook for hook in hooks if getattr(METHODS[name], hook) is not getattr(Method, hook)}


def test_every_method_has_a_case_and_only_what_replaces_the_objective_has_no_neutral_parameters():
    assert set(CASES) == set(METHODS)
    replaces = {name for name in METHODS if hooks_of(name) & {"baseline", "ratio", "surrogate"}}
    assert set(METHODS) - set(NEUTRAL) <= replaces


@pytest.mark.parametrize("name", [*METHODS, *BUNDLES])
def test_methods_are_documented(name):
    method = METHODS.get(name) or BUNDLES[name]
    assert method.paper
    assert method.__doc__
    assert len(method.__doc__.splitlines()[0]) <= 118
    assert all(field.description for field in method.model_fields.values())


@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_parameters_are_bit_identical_to_the_run_without(name, policy, rollouts):
    case = CASES[name]
    base = list(case.without) or ["grpo"]
    entry = {"name": name, **case.neutral}
    methods = [entry, *base[1:]] if name in BASELINES else [*base, entry]
    without, with_it = (update_on(policy, rollouts, config_of(m, case.config)) for m in (base, methods))
    assert without.loss == with_it.loss
    assert torch.equal(without.tokens["key"], with_it.tokens["key"])
    assert all(torch.equal(a, b) for a, b in zip(without.gradients, with_it.gradients, strict=True))


def smoke_run(methods: list, extra: dict, root):
    """Metrics but timings and those of the methods themselves, and the last step's tables, of a run of two steps."""
    overrides = {"methods": methods, "training.steps": 2, "evaluation.sets": []} | extra
    run = Run(train_run(wb.preset("smoke", overrides), root, log=lambda line: None))
    last = run.rollouts(2)
    return run.metrics.filter(regex="^(?!method/|time/)"), last.sequences, last.tokens


@pytest.mark.parametrize("name", [name for name in NEUTRAL if hooks_of(name) & BEFORE_THE_BATCH])
def test_neutral_parameters_leave_prompts_and_responses_as_they_are(name, tmp_path):
    case = CASES[name]
    base = list(case.without) or ["grpo"]
    entry = {"name": name, **case.neutral}
    methods = [entry, *base[1:]] if name in BASELINES else [*base, entry]
    without, with_it = (smoke_run(m, case.config, tmp_path) for m in (base, methods))
    assert all(one.equals(other) for one, other in zip(without, with_it, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_a_method_that_acts_on_the_batch_changes_the_update(name, policy, rollouts):
    if name == "grpo" or not hooks_of(name) & ON_THE_BATCH:
        pytest.skip("does not act on a batch by itself")
    case = CASES[name]
    base = list(case.without) if name not in BASELINES else ["grpo"]
    plain = update_on(policy, rollouts, config_of(base, case.config))
    acted = update_on(policy, rollouts, config_of(methods_of(name, case), case.config))
    gap = max((a - b).abs().max().item() for a, b in zip(plain.gradients, acted.gradients, strict=True))
    assert gap > 1e-9


@pytest.mark.parametrize("name", CASES)
def test_micro_batches_and_order_change_nothing(name, policy, rollouts):
    methods, config = methods_of(name, CASES[name]), CASES[name].config
    whole = update_on(policy, rollouts, config_of(methods, config))
    split = update_on(policy, rollouts, config_of(methods, config, budget=64))
    assert_same(whole, split)
    order = torch.randperm(len(rollouts.sequences), generator=torch.Generator().manual_seed(1))
    assert_same(whole, update_on(policy, rollouts.select_sequences(order), config_of(methods, config, budget=64)))


def finds_old(name: str) -> bool:
    """Whether the trainer leaves a step's log-probs before its updates to the only update."""
    needs = Composition(config_of(methods_of(name, CASES[name]), CASES[name].config).build_methods()).needs
    return not {"old_logp", "values", "soft_values"} & needs


BENT = {"kl_cov", "sent_kl"}
"""|log π − log π_old| has no derivative at 0: what is exactly 0 here is rounding after a scoring pass."""
FINDS_OLD = [name for name in CASES if finds_old(name) and name not in BENT]


@pytest.mark.parametrize("name", FINDS_OLD)
def test_log_probs_that_nobody_asked_for_earlier_are_found_by_the_update(name, policy, rollouts):
    config = config_of(methods_of(name, CASES[name]), CASES[name].config, budget=64)
    known, found = (update_on(policy, on_policy(policy, rollouts, known), config) for known in (True, False))
    assert_same(known, found)
    assert torch.equal(found.tokens["logp"], found.tokens["old_logp"])


FINDS = ", finds old"


def one_rank(rank, path, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    policy = double_policy()
    rollouts = made_up_rollouts(policy)
    policy.divide("cpu")
    found = {
        name: update_on(policy, rollouts, config_of(methods_of(name, case), case.config, budget=64))
        for name, case in CASES.items()
    }
    unknown = on_policy(policy, rollouts, known=False)
    for name in ("grpo", "clip_cov"):  # the latter holds all graphs
        found[name + FINDS] = update_on(policy, unknown, config_of(methods_of(name, CASES[name]), budget=64))
    results[rank] = found
    dist.destroy_process_group()


def test_two_processes_change_nothing(tmp_path, policy, rollouts):
    with mp.Manager() as manager:
        results = manager.dict()
        mp.spawn(one_rank, args=(tmp_path / "rendezvous", results), nprocs=2)
        found = [results[0], results[1]]
    known = on_policy(policy, rollouts, known=True)
    for name in found[0]:
        case = CASES[name.removesuffix(FINDS)]
        batch = known if name.endswith(FINDS) else rollouts
        alone = update_on(policy, batch, config_of(methods_of(name.removesuffix(FINDS), case), case.config))
        for rank in found:
            try:
                assert_same(alone, rank[name])
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from error


@pytest.mark.parametrize("name", CASES)
def test_state_survives_json_and_a_fresh_object(name):
    case = CASES[name]
    method = METHODS[name](**case.acting)
    for measures in case.observes:
        method.observe(measures)
    other = METHODS[name](**case.acting)
    other.load_state_dict(json.loads(json.dumps(method.state_dict())))
    assert other.measures() == method.measures()
    assert other.state_dict() == method.state_dict()


STATEFUL = [name for name in CASES if METHODS[name](**CASES[name].acting).state_dict()]
TAKES_OTHER_PROMPTS = [name for name in CASES if hooks_of(name) & {"pool", "candidates", "rounds"}]


class Crash(Exception):
    pass


@pytest.mark.parametrize("name", sorted({*STATEFUL, *TAKES_OTHER_PROMPTS}))
def test_a_run_that_crashed_ends_bit_identical(name, tmp_path):
    """Crashed after step 3, so that step 3 is done again from the checkpoint of step 2."""
    case = CASES[name]
    overrides = {"methods": methods_of(name, case), "training.steps": 4, "evaluation.sets": []} | case.config
    config = wb.preset("smoke", overrides)

    def crash_after_three(line):
        if line.startswith("step    3/4"):
            raise Crash

    with pytest.raises(Crash):
        train_run(config, tmp_path / "crashed", log=crash_after_three)
    crashed = train_run(config, tmp_path / "crashed", log=lambda line: None)
    whole = train_run(config, tmp_path / "whole", log=lambda line: None)
    assert (crashed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    for step in Run(whole).rollout_steps:
        for table in ("sequences", "tokens"):
            one, other = (getattr(Run(folder).rollouts(step), table) for folder in (crashed, whole))
            assert one.equals(other)


def test_a_name_is_registered_once():
    from workbench.methods import register

    with pytest.raises(ValueError, match="grpo"):
        register(METHODS["grpo"])
