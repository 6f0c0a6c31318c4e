"""A run from config to folder: begins, continues or finds it finished; checkpoints; says how it ended."""

from __future__ import annotations

import errno
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from workbench import ranks
from workbench.config import RunConfig
from workbench.metrics.series import ema, ema_next
from workbench.store import Layout, Run, RunWriter, SilentWriter, runs_root
from workbench.tables import NonFiniteError
from workbench.training.checkpoints import load_checkpoint, save_checkpoint
from workbench.training.evaluation import Evaluation, questions
from workbench.training.trainer import StepResult, Trainer
from workbench.training.watch import Watch


class RunInterrupted(KeyboardInterrupt):
    """The run was asked to stop and did so at a step boundary; training the same config continues it."""


def train_run(
    config: RunConfig, root: str | Path | None = None, log: Callable[[str], None] = print, wait: float = 0.0
) -> Path:
    """Train `config` in this process and return its folder under `root` (by default outputs/runs).

    A finished run is returned as it is; an interrupted one continues from its last checkpoint, bit for bit on CPU.
    SIGINT and SIGTERM stop it at the next step boundary, with a checkpoint, raising `RunInterrupted`. Raises
    `RunLocked` if another process still trains it after `wait` seconds, `OSError` if the disk is full,
    `NonFiniteError` if anything becomes non-finite, with the offending batch in `non_finite/`, `RankLost` if one of
    many processes is gone; the folder stays readable and continues once the cause is gone.
    """
    with ExitStack() as stack:
        with ranks.as_one():
            writer = stack.enter_context(_writer(config, runs_root(root), wait))
        folder = writer.layout.root
        done = writer.layout.status.exists() and Run(folder).status["state"] == "finished"
        if ranks.from_first(done):
            log(f"run {config.run_id}: finished before, loaded")
            return folder
        loop = _Loop(config, writer, log if ranks.is_first() else lambda line: None)
        with Watch(lambda reason: writer.status("failed", loop.step, reason)) as watch:
            _run_to_the_end(loop, watch)
        writer.status("finished", loop.step)
    return folder


def _writer(config: RunConfig, root: Path, wait: float) -> RunWriter:
    return RunWriter(config, root, wait) if ranks.is_first() else SilentWriter(config, root)


def _run_to_the_end(loop: _Loop, watch: Watch) -> None:
    """Run; what ends it early is written to the run's status, told to the other ranks and raised."""
    try:
        with ranks.in_contact():
            loop.run()
    except RunInterrupted as stop:
        loop.writer.status("interrupted", loop.step, str(stop))
        raise
    except OSError as error:
        if error.errno != errno.ENOSPC:
            _fail(loop, watch, str(error))
            raise
        reason = f"disk full in step {loop.step + 1}; free some space and train the same config to continue"
        _fail(loop, watch, reason)
        raise OSError(errno.ENOSPC, reason) from error
    except NonFiniteError as error:
        loop.keep_offending(error)
        _fail(loop, watch, str(error))
        raise
    except ranks.RankLost as error:
        _fail(loop, watch, str(error))
        raise
    except Exception as error:
        _fail(loop, watch, f"{type(error).__name__}: {error}")
        raise


def _fail(loop: _Loop, watch: Watch, reason: str) -> None:
    """Say why on disk as far as the disk allows; the exception itself goes on either way."""
    here = f"rank {ranks.number()}"
    reason = watch.report(reason if ranks.is_first() or here in reason else f"{reason} ({here})")
    try:
        loop.writer.status("failed", loop.step, reason)
    except OSError:
        loop.log(f"the run's status could not be written either; it failed because: {reason}")


class _Loop:
    """The steps of one `train_run` call; `step` is the last one completed."""

    def __init__(self, config: RunConfig, writer: RunWriter, log: Callable[[str], None]):
        self.config, self.writer, self.log = config, writer, log
        self.step = 0
        self.entropy = float("nan")  # smoothed

    def run(self) -> None:
        with ranks.as_one():
            self.writer.begin()
            self.writer.status("running", 0)
        with ranks.as_one():
            _require_shared(self.writer.layout)
        with _stop_requests() as requested, ExitStack() as stack:
            self.trainer = Trainer(self.config)
            stack.callback(self.trainer.engine.close)
            self.step = load_checkpoint(self.writer.layout, self.trainer)
            self.writer.rewind(self.step)
            self.entropy = self._smoothed_so_far()
            for caution in dict.fromkeys(self._cautions()):  # training and evaluation may share one
                self.log(f"caution: {caution}")
            where = f" on {ranks.count()} ranks" if ranks.count() > 1 else ""
            self.log(f"run {self.config.run_id}: step {self.step} of {self.config.training.steps}{where}")
            self._evaluate_if_due()
            while self.step < self.config.training.steps:
                self._next_step()
                if stop := next(iter(ranks.gathered_list(requested)), None):
                    self._checkpoint()
                    raise RunInterrupted(f"stopped by {stop} after step {self.step}; train again to continue")

    def _next_step(self) -> None:
        step, storage = self.step + 1, self.config.storage
        started = time.perf_counter()
        result = self.trainer.step(step)
        if self.config.keeps_rollouts(step):
            self.writer.rollouts(step, result.rollouts, self.trainer.pieces)
        self.writer.timings({"step": step, **result.timings, "time/step": time.perf_counter() - started})
        self.entropy = ema_next(self.entropy, result.metrics["entropy/mean"])
        self.writer.metrics(result.metrics | {"entropy/ema": self.entropy})
        self.step = step
        self._evaluate_if_due()
        if step % storage.checkpoint_every == 0 or step == self.config.training.steps:
            self._checkpoint()
        self.writer.status("running", step)
        self.log(_line(result, step, self.config.training.steps, time.perf_counter() - started))

    def _smoothed_so_far(self) -> float:
        done = Run(self.writer.layout.root).metrics
        return float(ema(done["entropy/mean"])[-1]) if len(done) else float("nan")

    def keep_offending(self, error: NonFiniteError) -> None:
        """Write the batch that `error` names, as far as it names one and the disk takes it."""
        if error.rollouts is None:
            return
        try:
            self.writer.non_finite(self.step + 1, error.rollouts, self.trainer.pieces)
            self.log(f"the offending batch is in {self.writer.layout.non_finite}")
        except OSError as failure:
            self.log(f"the offending batch could not be written: {failure}")

    def _checkpoint(self) -> None:
        save_checkpoint(self.writer.layout, self.trainer, self.step, self.config.storage.keep_checkpoints)

    def _cautions(self) -> list[str]:
        """Of the config, the training prompts and the evaluation sets. Raises for a set that cannot be evaluated."""
        collector = self.trainer.collector
        found = [*self.config.cautions(), *collector.cautions()]
        trained = {prompt.text for prompt in collector.prompts}
        for name in self.config.evaluation.sets:
            found += self._evaluation(name).check(self.trainer.policy)
            asked = questions(name, self.config.evaluation.prompts)
            if shared := sum(prompt.text in trained for prompt in asked):
                found.append(f"{shared} of the {len(asked)} prompts of evaluation set '{name}' are trained on")
        return found

    def _evaluation(self, name: str) -> Evaluation:
        """The probe set `name` after the current step."""
        settings = self.config.evaluation
        return Evaluation(
            name,
            settings.prompts,
            settings.samples,
            settings.temperature,
            self.config.seed,
            self.step,
            top_p=settings.top_p,
            max_new_tokens=settings.max_new_tokens,
            task=self.config.task,
        )

    def _evaluate_if_due(self) -> None:
        evaluation, last = self.config.evaluation, self.config.training.steps
        due = self.step in (0, last) or (evaluation.every and self.step % evaluation.every == 0)
        for name in evaluation.sets if due else ():
            if ranks.from_first(self.writer.layout.evaluation(self.step, name).exists()):
                continue
            started = time.perf_counter()
            samples = self._evaluation(name).sample(self.trainer.policy, self.trainer.engine)
            self.writer.evaluation(self.step, name, samples)
            correct = samples.correct.double().mean().item()
            self.log(
                f"evaluated {name} after step {self.step}: pass@1 {correct:.3f} ({time.perf_counter() - started:.1f} s)"
            )


def _require_shared(layout: Layout) -> None:
    if not layout.config.exists():
        raise ValueError(
            f"rank {ranks.number()} does not see the run's folder {layout.root}; set --root to a folder that all "
            "machines share"
        )


def _line(result: StepResult, step: int, steps: int, seconds: float) -> str:
    m = result.metrics
    return (
        f"step {step:4d}/{steps}  entropy {m['entropy/mean']:.4f}  reward {m['reward/mean']:.3f}  "
        f"length {m['length/mean']:.1f}  {seconds:.2f} s"
    )


@contextmanager
def _stop_requests() -> Iterator[list[str]]:
    """Names of the stop signals received so far; empty means go on. A second signal acts at once."""
    received: list[str] = []

    def note(number: int, _frame) -> None:
        signal.signal(number, previous[number])
        received.append(signal.Signals(number).name)

    try:
        previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals go elsewhere
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
