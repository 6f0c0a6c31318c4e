"""Subsets measured with the policy: embeddings, and each kind inside a run."""

import pytest
import torch

import workbench as wb
from tests.tiny import tiny_policy
from workbench.config import ConfigError
from workbench.training.collect import Collector
from workbench.training.prompts import prompt_perplexity
from workbench.training.subsets import prompt_embeddings
from workbench.training.trainer import Trainer


@pytest.mark.parametrize("budget", [8, 4096])
def test_embeddings_are_the_mean_of_the_last_hidden_states(budget):
    policy = tiny_policy()
    prompts = [torch.tensor(ids) for ids in ([3, 1, 4], [5], [9, 2, 6, 5, 3, 5], [8, 9])]
    with torch.no_grad():
        own = [policy.model.model(input_ids=ids.unsqueeze(0), use_cache=False).last_hidden_state[0] for ids in prompts]
    expected = torch.stack([states.double().mean(0) for states in own]).float()
    torch.testing.assert_close(prompt_embeddings(policy, prompts, budget), expected, rtol=1e-5, atol=1e-5)


def collector(**subset) -> Collector:
    settings = {f"task.subset.{name}": value for name, value in subset.items()}
    return Trainer(wb.preset("smoke", {**settings, "task.train_size": 24, "evaluation.sets": []})).collector


def texts(made: Collector) -> list[str]:
    return [prompt.text for prompt in made.prompts]


def test_without_a_subset_all_prompts_are_used():
    assert len(texts(collector())) == 24


def test_clusters_and_a_random_subset_of_equal_size():
    everything = texts(collector())
    clustered = texts(collector(kind="clusters", clusters=6, largest=2))
    assert 8 <= len(clustered) < 24 and set(clustered) < set(everything)
    drawn = texts(collector(kind="random", size=len(clustered)))
    assert len(drawn) == len(clustered) and set(drawn) < set(everything)


def test_perplexity_keeps_the_end_that_is_asked_for():
    made = collector()
    ids = [made.policy.encode(prompt.text) for prompt in made.prompts]
    rank = prompt_perplexity(made.policy, ids, 4096).argsort().tolist()
    kept = texts(collector(kind="perplexity", size=5, order="highest"))
    assert sorted(kept) == sorted(texts(made)[row] for row in rank[-5:])


def test_pass_rates_split_the_prompts_without_rest():
    low = texts(collector(kind="pass_rate", samples=2, pass_rate_high=0.25))
    rest = texts(collector(kind="pass_rate", samples=2, pass_rate_low=0.5))
    assert low and rest and sorted([*low, *rest]) == sorted(texts(collector()))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "random"}, "task.subset.size"),
        ({"kind": "clusters", "clusters": 10}, "task.subset.largest"),
        ({"largest": 11, "clusters": 10}, "exceeds task.subset.clusters"),
        ({"pass_rate_low": 0.9, "pass_rate_high": 0.1}, "swap them"),
    ],
)
def test_subsets_that_cannot_be_meant_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        wb.preset("smoke", {f"task.subset.{name}": value for name, value in settings.items()})


def test_a_subset_of_more_than_there_is_is_refused():
    with pytest.raises(ValueError, match="there are 24 training prompts"):
        collector(kind="random", size=25)
