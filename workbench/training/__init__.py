"""The training loop: sampling to advantages to loss to update, checkpoints, evaluation, and the pre-training recipe."""

__all__ = ["RunInterrupted", "train_run"]


def __getattr__(name: str):
    if name in __all__:  # found when first used: the what-if lab needs the objective, not transformers
        from workbench.training import run

        return getattr(run, name)
    raise AttributeError(f"module 'workbench.training' has no attribute '{name}'")
