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
    # Minutes on two cores.
    "cpu": {"name": "cpu"},
    # One GPU: the bundled policy at a batch that fills it better, in bfloat16.
    "gpu": {
        "name": "gpu",
        "policy": {"precision": "bfloat16"},
        "rollout": {"prompts": 128, "samples": 16},
        "training": {"steps": 400, "micro_batch_tokens": 65536},
        "evaluation": {"prompts": 512, "samples": 64},
    },
    # The published setting of arXiv 2511.05993 (§1.1): policy, batch, updates, optimiser, length, evaluation samples.
    "paper": {
        "name": "paper",
        "policy": {"model": "Qwen/Qwen2.5-Math-7B", "precision": "bfloat16"},
        "task": {"train_size": 17398},
        "rollout": {"prompts": 256, "samples": 16, "max_new_tokens": 4096},
        "optimiser": {"learning_rate": 1e-6, "schedule": "cosine", "weight_decay": 0.01},
        "training": {"steps": 402, "micro_batch_tokens": 16384},
        "evaluation": {"samples": 64, "every": 11},
    },
}


def preset(name: str, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """The named preset with dotted overrides applied, e.g. preset("cpu", {"seed": 1}). Raises `ConfigError`."""
    if name not in PRESETS:
        raise ConfigError(f"unknown preset '{name}'{nearest(name, PRESETS)}")
    return make_config(PRESETS[name], overrides)
