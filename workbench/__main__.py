"""The command line: `python -m workbench COMMAND`."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click

import workbench as wb
from workbench import ranks
from workbench.config import make_section, parse_overrides
from workbench.methods.describe import describe_method, method_table
from workbench.store import RunLocked, runs_root
from workbench.tasks.sandbox import SandboxUnavailable


def user_errors() -> tuple[type[Exception], ...]:
    """What a user can cause and mend: told in one sentence, without a traceback, with exit code 1."""
    broken = [ValueError, FileNotFoundError, KeyError, OSError, FloatingPointError]
    if rollout := sys.modules.get("workbench.rollout"):  # it takes seconds, and what is not loaded cannot have failed
        broken.append(rollout.EngineDied)
    return *broken, RunLocked, SandboxUnavailable, wb.NotebookFailed, ranks.RankLost


def told_plainly(command: Callable) -> Callable:
    """Turn expected errors into one line on stderr and exit code 1, a stop request into exit code 130."""

    @functools.wraps(command)
    def wrapped(*args, **kwargs):
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt as stop:
            click.echo(f"interrupted: {stop}" if str(stop) else "interrupted", err=True)
            sys.exit(130)
        except user_errors() as error:
            message = error.args[0] if isinstance(error, KeyError) and error.args else error
            raise click.ClickException(str(message)) from error

    return wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.pass_context
def main(context: click.Context) -> None:
    """The entropy workbench: train language models with RL, measure their entropy exactly, look at every token."""
    if ranks.launched() > 1 and context.invoked_subcommand != "train":
        raise click.ClickException(
            f"'{context.invoked_subcommand}' is one process's work; start it without torchrun, which is for 'train'"
        )


@main.command()
@click.argument("overrides", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option("--preset", default="cpu", show_default=True, help=f"Start from this preset: {', '.join(wb.PRESETS)}.")
@click.option("--config", "config_path", type=click.Path(dir_okay=False), help="Start from this YAML file instead.")
@click.option("--root", type=click.Path(path_type=Path), help="Folder of runs.  [default: outputs/runs]")
@click.option("--wait", default=0.0, help="Wait so many seconds while another process trains this run.  [default: 0]")
@click.option("--dry-run", is_flag=True, help="Print the resolved config and the run's id; compute nothing.")
@told_plainly
def train(
    overrides: tuple[str, ...], preset: str, config_path: str | None, root: Path | None, wait: float, dry_run: bool
) -> None:
    """Train a run, continue an interrupted one, or find it finished.

    Example: python -m workbench train seed=1 objective.clip_high=0.28 'methods=[grpo, pos_adv_reweight]'
    """
    values = parse_overrides(overrides)
    config = wb.load_config(config_path, values) if config_path else wb.preset(preset, values)
    if dry_run:
        for caution in config.cautions():
            click.echo(f"caution: {caution}", err=True)
        click.echo(f"# {config.run_id}\n{config.to_yaml()}", nl=False)
        return
    from workbench.study.launch import stop_with_parent
    from workbench.training.run import train_run

    stop_with_parent()
    ranks.join()
    folder = train_run(config, root, wait=wait)
    if ranks.is_first():
        click.echo(f"run {folder.name} is finished")
    ranks.leave()


@main.command()
@click.argument("overrides", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option("--preset", default="cpu", show_default=True, help=f"Start from this preset: {', '.join(wb.PRESETS)}.")
@click.option("--config", "config_path", type=click.Path(dir_okay=False), help="Start from this YAML file instead.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, help="Port to listen on.")
@told_plainly
def serve(overrides: tuple[str, ...], preset: str, config_path: str | None, host: str, port: int) -> None:
    """Start a vLLM server to sample for a run with this config, on the GPUs this process sees.

    The run finds it by rollout.engine=vllm rollout.vllm.server=http://HOST:PORT. Who reaches the server can load
    weights into it: let it listen where only the trainer is.
    """
    values = parse_overrides(overrides)
    config = wb.load_config(config_path, values) if config_path else wb.preset(preset, values)
    from workbench.rollout.vllm_server import serve as run_server
    from workbench.study.launch import terminated_like_interrupted

    with terminated_like_interrupted():
        code = run_server(config.policy, config.rollout.vllm, host, port)
    sys.exit(code)


@main.command()
@click.argument("subject", metavar="RUN_OR_MODEL")
@click.option("--sets", default="reduce", show_default=True, help="Evaluation sets, separated by commas.")
@click.option("--prompts", default=256, show_default=True, help="Prompts per set.")
@click.option("--samples", default=64, show_default=True, help="Samples per prompt.")
@click.option("--temperature", default=1.0, show_default=True, help="Sampling temperature.")
@click.option("--top-p", default=1.0, show_default=True, help="Sample from the nucleus of this mass; 1: from all.")
@click.option("--max-new-tokens", default=0, help="Longest response; 0 takes each set's own bound.")
@click.option("--chat-template", is_flag=True, help="Put prompts into the model's chat template; a run brings its own.")
@click.option("--system-prompt", default="", help="System message of that chat.")
@click.option("--seed", default=0, show_default=True, help="Seed of the samples.")
@click.option("--out", default="outputs/evaluations", type=click.Path(path_type=Path), show_default=True)
@told_plainly
def evaluate(subject: str, out: Path, **settings) -> None:
    """Sample a run's newest checkpoint, or a model, on evaluation sets; measure what they say.

    Leaves one Parquet file per set with every sample. A stopped evaluation continues where it was; asked again, it
    measures the stored samples.
    """
    from workbench.study.evaluate import evaluate_subject

    table = evaluate_subject(subject, out, log=click.echo, **settings)
    click.echo(table.to_string(index=False, float_format="%.4f"))


@main.command()
@click.argument("notebook")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("-p", "--parameter", "options", multiple=True, metavar="NAME=VALUE", help="A parameter; repeatable.")
@click.option("--parameters-file", type=click.Path(dir_okay=False), help="YAML or JSON file of parameters.")
@click.option("--output", default="outputs", show_default=True, help="Folder for notebooks, reports and runs.")
@click.option("--standalone", is_flag=True, help="One report file with plotly.js inside, instead of beside it.")
@told_plainly
def notebook(
    notebook: str, parameters: tuple[str, ...], options: tuple[str, ...], parameters_file: str | None, **where
) -> None:
    """Execute NOTEBOOK (a path, or a name such as 00_quickstart) with parameters and leave its report."""
    _execute(notebook, [*parameters, *options], parameters_file, **where)


@main.command()
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--output", default="outputs", show_default=True, help="Folder for notebooks, reports and runs.")
@told_plainly
def quickstart(parameters: tuple[str, ...], output: str) -> None:
    """GRPO on the bundled policy: train, measure, and leave an interactive report (minutes on two CPU cores)."""
    _execute("00_quickstart", list(parameters), None, output, standalone=True)


def _execute(name: str, assignments: list[str], file: str | None, output: str, standalone: bool) -> None:
    from workbench.study.grid import find_notebook
    from workbench.study.launch import stop_with_parent, terminated_like_interrupted
    from workbench.study.notebooks import read_parameters_file

    path = find_notebook(name)
    given = read_parameters_file(file) if file else {}
    parameters = given | wb.parse_parameters(path, assignments)
    stop_with_parent()
    with terminated_like_interrupted():
        executed = wb.execute_notebook(path, parameters, output, standalone=standalone)
    click.echo(f"report: {executed.report}")


@main.command()
@click.argument("arguments", nargs=-1, metavar="[FILE.yaml] [FIELD=A,B,...]...")
@click.option("--preset", help="Preset the runs start from.  [default: cpu]")
@click.option("--notebook", help="Execute this notebook in every cell; the fields are its parameters.")
@click.option("--executor", type=click.Choice(["local", "ray", "slurm"]), default="local", show_default=True)
@click.option("--jobs", default=0, help="Cells at a time.  [default: one per core, or per lease of GPUs]")
@click.option("--gpus", default=0, show_default=True, help="GPUs per cell.")
@click.option("--cpus", default=1, show_default=True, help="Cores per cell (ray, slurm).")
@click.option("--address", default="auto", show_default=True, help="Address of the Ray cluster.")
@click.option("--bring-back", is_flag=True, help="Ray nodes share no storage: bring results back through Ray.")
@click.option("--slurm", "slurm_options", multiple=True, metavar="NAME=VALUE", help="For submitit: timeout_min=600 …")
@click.option("--detach", is_flag=True, help="Slurm: submit and return.")
@click.option("--only-failed", is_flag=True, help="Only cells that failed, were killed or lost.")
@click.option("--fail-fast", is_flag=True, help="Start no further cell once one has failed.")
@click.option("--status", "only_status", is_flag=True, help="Print how every cell stands; execute nothing.")
@click.option("--dry-run", is_flag=True, help="Check and print the plan; execute nothing.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for everything.  [default: outputs]")
@told_plainly
def grid(arguments: tuple[str, ...], **options) -> None:
    """Execute a grid of runs or notebooks, from a YAML file and/or FIELD=A,B,... on the command line.

    Everything is checked before anything is computed; cells that are done are not executed again; Ctrl-C leaves all
    of it resumable by the same command.

    Example: python -m workbench grid seed=0,1,2 objective.clip_high=0.2,0.28 training.steps=80
    """
    from workbench.study.grid_command import run_grid_command

    sys.exit(0 if run_grid_command(list(arguments), click.echo, **options) else 1)


@main.command()
@click.option("--scale", default="cpu", show_default=True, help="Preset of the runs: smoke, cpu, gpu or paper.")
@click.option("--seeds", default="0,1,2", show_default=True, help="Seeds of every arm, separated by commas.")
@click.option("--jobs", default=0, help="Runs at a time.  [default: one per core]")
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    help="CSV of what was measured before, such as docs/scorecard.csv: not trained again; what is new is added.",
)
@click.option("--reports", is_flag=True, help="Also execute every study's notebook; the card then leads to its report.")
@click.option("--dry-run", is_flag=True, help="Print the plan with its estimate; compute nothing.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for everything.  [default: outputs]")
@told_plainly
def scorecard(scale: str, seeds: str, **options) -> None:
    """Make the runs that the claims of all studies need, judge every claim, and leave the scorecard's report.

    Runs that exist are loaded, interrupted ones continued; Ctrl-C leaves all of it resumable by the same command.
    """
    from workbench.study.launch import stop_with_parent, terminated_like_interrupted
    from workbench.study.scorecard import make_scorecard, parse_seeds

    stop_with_parent()
    with terminated_like_interrupted():
        report = make_scorecard(scale, parse_seeds(seeds), log=click.echo, **options)
    if report:
        click.echo(f"report: {report}")


@main.command()
@click.option("--root", type=click.Path(path_type=Path), help="Folder of runs.  [default: outputs/runs]")
@told_plainly
def demo(root: Path | None) -> None:
    """Make the demo set of runs for the explorer: three methods, three seeds (minutes on two CPU cores)."""
    from workbench.study.demo import make_demo

    made = make_demo(root, click.echo)
    click.echo(f"runs: {made[0].path.parent}")


@main.command()
@click.option("--root", type=click.Path(path_type=Path), help="Folder of runs.  [default: outputs/runs]")
@told_plainly
def runs(root: Path | None) -> None:
    """List the stored runs."""
    table = wb.runs(root)
    if table.empty:
        click.echo(f"no runs in {root or runs_root()}; `python -m workbench train` makes one")
        return
    columns = ["id", "state", "step", "steps", "entropy/mean", "reward/mean", "seed"]
    click.echo(table[columns].to_string(index=False, float_format="%.4f"))


@main.command()
@click.option("--output", type=click.Path(path_type=Path), help="Folder they lie in.  [default: outputs]")
@told_plainly
def executions(output: Path | None) -> None:
    """List the executions of notebooks and how each of them stands."""
    table = wb.executions(output)
    if table.empty:
        click.echo("no notebook was executed yet; `python -m workbench quickstart` does")
        return
    click.echo(table.drop(columns=["started", "report"]).to_string(index=False, float_format="%.0f"))


@main.command(name="import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "--from", "kind", type=click.Choice(["trl", "verl", "wandb", "tensorboard"]), help="The tool that wrote it."
)
@click.option("--rollouts", type=click.Path(path_type=Path), help="Folder of its completions or rollout dumps.")
@click.option("--name", help="Readable part of the run's id.")
@click.option("--root", type=click.Path(path_type=Path), help="Folder of runs.  [default: outputs/runs]")
@told_plainly
def import_(source: Path, **options) -> None:
    """Import a run of another tool from SOURCE: TRL, verl, an offline run of W&B, TensorBoard event files."""
    run = wb.open_run(wb.import_run(source, **options))
    recorded = [name for name in run.metrics if not name.startswith("foreign/") and name != "step"]
    click.echo(f"run {run.id}: {len(run.metrics)} steps, rollouts of {len(run.rollout_steps)}; {', '.join(recorded)}")


@main.command()
@click.argument("run")
@click.option("--step", type=int, help="Show rollouts of this kept step.")
@click.option("--count", default=8, show_default=True, help="Rollouts to show.")
@told_plainly
def show(run: str, step: int | None, count: int) -> None:
    """Show a run (folder or id): how it stands, its last metrics, pass@k; with --step its rollouts."""
    stored = wb.open_run(run)
    if step is not None:
        chosen = stored.rollouts(step).sequences.head(count)
        click.echo(chosen[["prompt_text", "text", "reward", "advantage", "length"]].to_string(index=False))
        return
    status = stored.status
    click.echo(f"{stored.path}\nstate: {status['state']}, step {status['step']} of {status['steps']}")
    if status.get("reason"):
        click.echo(f"reason: {status['reason']}")
    click.echo(f"kept rollouts of steps: {stored.rollout_steps}")
    if len(stored.metrics):
        click.echo(stored.metrics.iloc[-1].to_string(float_format="%.5f"))
        click.echo(wb.course_table(stored.metrics).to_string(index=False, float_format="%.4f"))
    if len(stored.evals):
        click.echo(wb.pass_at_k_table(stored.evals).to_string(index=False, float_format="%.4f"))


@main.command("try-step")
@click.argument("run")
@click.argument("step", type=int)
@click.option(
    "--config", "config_path", required=True, type=click.Path(dir_okay=False), help="The run's config, changed."
)
@click.option("--label", default="", help="What is changed, in words.")
@told_plainly
def try_step(run: str, step: int, config_path: str, label: str) -> None:
    """Take one STEP of a stored RUN for real under changed methods and objective; print its measured change of entropy.

    The run itself stays as it is; the outcome is kept in its folder `branches/`.
    """
    from workbench.training.branch import take_branch

    outcome = take_branch(wb.open_run(run), step, wb.load_config(config_path), label)
    click.echo(f"step {step}: measured ΔH {outcome['measured']:+.6f} nats ({outcome['setting'] or 'no label'})")


@main.command()
@click.argument("executed", metavar="NOTEBOOK")
@click.argument("html", required=False, type=click.Path(path_type=Path))
@told_plainly
def report(executed: str, html: Path | None) -> None:
    """Export an executed NOTEBOOK as one self-contained HTML file that opens offline."""
    source = Path(executed)
    if not source.is_file():
        raise FileNotFoundError(f"no notebook at '{source}'; executed ones lie in outputs/notebooks/")
    click.echo(f"report: {wb.export_html(source, html or source.with_suffix('.html'))}")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--reports", type=click.Path(path_type=Path), help="Folder of reports.  [default: outputs/reports]")
@told_plainly
def share(folder: Path, reports: Path | None) -> None:
    """Copy all reports with their index into FOLDER, for any static server."""
    from workbench.report import share as share_reports

    click.echo(f"index: {share_reports(folder, reports)}")


@main.command()
@click.argument("name", required=False)
@told_plainly
def methods(name: str | None) -> None:
    """List the methods with their papers, or print one: formula, parameters, hooks."""
    if name:
        click.echo(describe_method(name))
        return
    for method, paper, line in method_table():
        click.echo(f"{method:22} {paper:40} {line}")


@main.command()
@click.option(
    "--markdown", is_flag=True, help="The whole list with masks and caveats, as in workbench/metrics/METRICS.md."
)
def metrics(markdown: bool) -> None:
    """List what every rollout step measures: name, unit, formula."""
    from workbench.report.metric_list import metric_lines, metric_markdown

    click.echo(metric_markdown() if markdown else "\n".join(metric_lines()), nl=not markdown)


@main.command()
@click.argument("overrides", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option("--output", default="outputs/policies/base", show_default=True, help="Folder of the new policy.")
@told_plainly
def pretrain(overrides: tuple[str, ...], output: str) -> None:
    """Make the bundled base policy anew (about 15 minutes on two cores), e.g. with seed=1."""
    from workbench.training.pretrain import PretrainConfig
    from workbench.training.pretrain import pretrain as make_policy

    make_policy(make_section(PretrainConfig, overrides=parse_overrides(overrides)), output)


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@told_plainly
def lab(arguments: tuple[str, ...]) -> None:
    """Open JupyterLab on the notebooks; further ARGUMENTS go to `jupyter lab`."""
    root = [] if any(a.startswith("--notebook-dir") for a in arguments) else ["--notebook-dir=."]
    sys.exit(subprocess.call([sys.executable, "-m", "jupyterlab", *root, *arguments]))


if __name__ == "__main__":
    main()
