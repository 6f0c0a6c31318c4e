"""Log-prob, entropy and their gradients from logits equal TRL's and verl's functions, fed fp64."""

import pytest
import torch
from trl.trainer.utils import entropy_from_logits, selective_log_softmax
from verl.utils import torch_functional as verl_functional

from workbench.policy.head import fused_head

TRL = (selective_log_softmax, entropy_from_logits)
VERL = (verl_functional.logprobs_from_logits, verl_functional.entropy_from_logits)


@pytest.mark.parametrize("reference", [TRL, VERL], ids=["trl", "verl"])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("spread", [0.1, 1.0, 6.0])
def test_the_head_is_theirs(reference, temperature, spread):
    g = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(*size, generator=g, dtype=torch.float64) for size in ((40, 16), (211, 16)))
    weight *= spread
    target = torch.randint(0, 211, (40,), generator=g)
    mix = torch.randn(2, 40, generator=g, dtype=torch.float64)
    gradients, values = [], []
    for own in (True, False):
        x, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        if own:
            now = fused_head(x, w, target, torch.full((40,), temperature, dtype=torch.float64), elements=(1000, 300))
            logp, entropy = now.logp, now.entropy
        else:
            logits = x @ w.T / temperature
            logp, entropy = reference[0](logits, target), reference[1](logits)
        (mix[0] * logp + mix[1] * entropy).sum().backward()
        values.append((logp, entropy))
        gradients.append((x.grad, w.grad))
    torch.testing.assert_close(values[0], values[1], atol=1e-11, rtol=1e-11)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-9, rtol=1e-9)
