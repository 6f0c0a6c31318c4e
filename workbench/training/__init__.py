"""The training loop: sampling to advantages to loss to update, checkpoints, evaluation, and the pre-training recipe."""

from workbench.training.run import RunInterrupted, train_run

__all__ = ["RunInterrupted", "train_run"]
