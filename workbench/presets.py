"""Named RunConfigs. A preset is nothing more than the fields in which it differs from the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.config import ConfigError, RunConfig, make_config, nearest

PRESETS: dict[str, dict[str, Any]] = {
    # Seconds, for tests: every part runs, nothing is learnt.
    "smoke": {
        "name": "smoke",
        "task": {"train_size": 64},
        "rollout": {"prompts": 8, "samples": 4},
        "training": {"steps": 4, "updates_per_rollout": 2},
        "evaluation": {"prompts": 8, "samples": 4},
        "storage": {"keep_rollouts_every": 2, "checkpoint_every": 2},
    },
    # Minutes on two cores. Calibrated on plain GRPO alone: clipping at four updates is in play while reward grows over
    # the whole run. Share of tokens clipped, first step -> middle -> end: 4 % -> 0.4-0.6 % -> 0.25-0.45 % at 4e-4
    # (entropy has collapsed by then, little is left to move); at 3e-4 it averages 0.4-0.5 %, at 1e-4 0.1 %. 4.5e-4 grew
    # more slowly and lost pass@16 on the one seed tried.
    "cpu": {"name": "cpu", "optimiser": {"learning_rate": 4e-4}, "training": {"steps": 150}},
    # One GPU: the bundled policy at a batch that fills it better, in bfloat16. Not calibrated.
    "gpu": {
        "name": "gpu",
        "policy": {"precision": "bfloat16"},
        "rollout": {"prompts": 128, "samples": 16},
        "training": {"steps": 400, "micro_batch_tokens": 65536},
        "evaluation": {"prompts": 512, "samples": 64},
    },
    # The published setting of arXiv 2511.05993: policy, data, batch, updates, optimiser, length, samples; AIME 2025, on
    # which its checkpoints are chosen, every 11 steps. The other sets of its tables are for `evaluate`.
    "paper": {
        "name": "paper",
        "policy": {"model": "Qwen/Qwen2.5-Math-7B", "precision": "bfloat16"},
        "task": {"name": "math/dapo", "train_size": 17398},
        "rollout": {"prompts": 256, "samples": 16, "max_new_tokens": 4096},
        "optimiser": {"learning_rate": 1e-6, "schedule": "cosine", "weight_decay": 0.01},
        "training": {"steps": 402, "micro_batch_tokens": 16384},
        "evaluation": {"sets": ["math/aime25"], "samples": 64, "every": 11},
    },
}


def preset(name: str, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """The named preset with dotted overrides applied, e.g. preset("cpu", {"seed": 1}). Raises `ConfigError`."""
    if name not in PRESETS:
        raise ConfigError(f"unknown preset '{name}'{nearest(name, PRESETS)}")
    return make_config(PRESETS[name], overrides)
