"""The policy and the rollout batch that the tests over all methods share."""

import pytest

from tests.methods.made_up import double_policy, made_up_rollouts


@pytest.fixture(scope="module")
def policy():
    return double_policy()


@pytest.fixture(scope="module")
def rollouts(policy):
    return made_up_rollouts(policy)
