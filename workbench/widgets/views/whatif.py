"""The what-if lab: other settings on the stored tokens of the step, by the method classes that train."""

import json

import ipywidgets
import numpy as np
import pandas as pd

from workbench.plots import forecast_bars
from workbench.widgets.data_table import DataTable
from workbench.widgets.jobs import Job, Jobs, config_file
from workbench.widgets.views.base import WIDE, View

TINY = 1e-9
LAYOUT = {"width": "330px"}


class WhatIfView(View):
    """Sliders over ε, λ, the entropy bonus, selections and baselines; a button takes the step for real."""

    title = "What-if"
    explains = "One step, first order, on this step's tokens: not a retrained outcome."

    def __init__(self, explorer):
        super().__init__(explorer)
        from workbench.training import settings, whatif  # torch: only when it is looked at

        self._settings, self._whatif = settings, whatif
        self._lab, self._quiet, self.jobs = None, False, Jobs()
        self._make_controls()
        self.trials = DataTable()
        rows = [
            ipywidgets.HBox([self.clip_low, self.clip_high, self.baseline]),
            ipywidgets.HBox([self.weight, self.bonus]),
            ipywidgets.HBox([self.selection, self.value]),
            ipywidgets.HBox([self.reset, self.try_step, self.train_run]),
        ]
        self.controls.children = (*rows, self.note, self.trials)

    def draw(self) -> None:
        run, step = self.explorer.run, self.explorer.tables().step
        if self._lab is None or (self._lab.run.id, self._lab.step) != (run.id, step):
            self._lab = self._whatif.WhatIf(run, step)
            self._as_trained()
        self._update()
        self._show_trials()

    def setting(self):
        """The setting the controls say; what stands as trained is left out of it."""
        start, choice = self._start, self._settings.SELECTIONS.get(self.selection.value)
        moved = {
            name: round(control.value, 6)
            for name, control in self._sliders.items()
            if abs(control.value - start[name]) > 1e-6
        }
        if choice is not None:
            moved["selection_value"] = self.value.value
        return self._settings.Setting(**moved, selection=self.selection.value, baseline=self.baseline.value)

    def _make_controls(self) -> None:
        s = self._settings
        slide = lambda words, top, step: ipywidgets.FloatSlider(  # noqa: E731
            description=words, min=0, max=top, step=step, readout_format=".3f", style=WIDE, layout=LAYOUT
        )
        self.clip_low, self.clip_high = slide("ε low", 1.0, 0.01), slide("ε high", 1.0, 0.01)
        self.weight, self.bonus = slide("λ, weight of A > 0", 1.0, 0.01), slide("entropy coefficient", 0.05, 0.0005)
        self.bonus.min = -0.05
        choices = [("selection as trained", s.AS_TRAINED), ("no selection", s.NONE)]
        choices += [(choice.label, name) for name, choice in s.SELECTIONS.items()]
        self.selection = ipywidgets.Dropdown(
            options=choices, description="tokens", style=WIDE, layout={"width": "430px"}
        )
        self.value = slide("its parameter", 1.0, 0.001)
        baselines = [("advantages as trained", s.AS_TRAINED), *[(name, name) for name in s.BASELINES]]
        self.baseline = ipywidgets.Dropdown(options=baselines, description="normalisation", style=WIDE)
        self.reset = ipywidgets.Button(description="as trained", icon="undo")
        self.try_step = ipywidgets.Button(description="take this step for real", icon="flask", layout={"width": "auto"})
        self.train_run = ipywidgets.Button(description="queue the whole run", icon="play", layout={"width": "auto"})
        self._sliders = {"clip_low": self.clip_low, "clip_high": self.clip_high,
                         "positive_weight": self.weight, "entropy_coefficient": self.bonus}  # fmt: skip
        for control in (*self._sliders.values(), self.value, self.baseline):
            control.observe(lambda _change: self._moved(), "value")
        self.selection.observe(lambda _change: self._selected(), "value")
        self.reset.on_click(lambda _button: (self._as_trained(), self._update()))
        self.try_step.on_click(lambda _button: self._queue_step())
        self.train_run.on_click(lambda _button: self._queue_run())

    def _as_trained(self) -> None:
        """Put the controls where the run was: bounds and weights as stored, the bonus as configured."""
        actual, configured = self._lab.actual, {m["name"]: m for m in self._lab.config.methods}
        trained = (actual.weight != 0).numpy()
        rewarded = (actual.advantage > 0).numpy() & trained
        middle = lambda values, mask: float(np.median(values.numpy()[mask])) if mask.any() else 0.0  # noqa: E731
        self._quiet = True
        self.clip_low.value = min(1.0, middle(actual.clip_low, trained))
        self.clip_high.value = min(1.0, middle(actual.clip_high, trained))
        self.weight.value = middle(actual.weight, rewarded) if "pos_adv_reweight" in configured else 1.0
        self.bonus.value = configured.get("entropy_bonus", {}).get("coefficient", 0.0)
        self.selection.value = self.baseline.value = self._settings.AS_TRAINED
        self.value.disabled = True
        self._start = {name: control.value for name, control in self._sliders.items()}
        self._quiet = False

    def _selected(self) -> None:
        choice = self._settings.SELECTIONS.get(self.selection.value)
        quiet, self._quiet = self._quiet, True
        self.value.disabled = choice is None
        if choice is not None:
            self.value.max, self.value.min = max(choice.high, self.value.min), choice.low
            self.value.max, self.value.value = choice.high, choice.value
            self.value.description = f"{choice.parameter}"
        self._quiet = quiet
        self._moved()

    def _moved(self) -> None:
        if not self._quiet and self._lab is not None:
            self._update()

    def _update(self) -> None:
        """Recompute the step under the controls' setting and show it beside the actual one."""
        lab, setting = self._lab, self.setting()
        try:
            other = lab.outcome(setting.config(lab.config))
        except ValueError as error:
            self.say(f"This setting cannot be trained: {_first_line(error)}")
            return
        table = compare(lab, other, setting.describe())
        changed = ((other.gradient - lab.actual.gradient).abs() > TINY) | (
            (other.entropy_gradient - lab.actual.entropy_gradient).abs() > TINY
        )
        self.say(f"{self.explains} {describe(lab, other, table, int(changed.sum()))}")
        self.explorer.detail.show(forecast_bars(table, lab.step), table)
        self.explorer.mark(changed.numpy() if bool(changed.any()) else None, "a changed gradient")

    def _queue_step(self) -> None:
        lab, setting = self._lab, self.setting()
        file = config_file(setting.config(lab.config))
        arguments = ["try-step", str(lab.run.path), str(lab.step), "--config", file, "--label", setting.describe()]
        self._add(Job(f"step {lab.step}: {setting.describe()}", arguments, done=lambda job: None))
        forecast = {"setting": setting.describe(), "step": lab.step, "forecast": self._forecast(setting)}
        path = forecasts_path(lab.run)
        path.parent.mkdir(exist_ok=True)
        with path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(forecast) + "\n")

    def _queue_run(self) -> None:
        lab, setting = self._lab, self.setting()
        config = setting.config(lab.config).model_copy(update={"name": f"{lab.config.name[:48]}-what-if"})
        root = str(lab.run.path.parent)
        self._add(Job(f"run {config.run_id}", ["train", "--config", config_file(config), "--root", root],
                      done=lambda job: None))  # fmt: skip

    def _add(self, job: Job) -> None:
        job.changed = self._show_trials
        self.jobs.add(job)
        self._show_trials()

    def _forecast(self, setting) -> float:
        table = compare(self._lab, self._lab.outcome(setting.config(self._lab.config)), "")
        return float(table["forecast ΔH"].iloc[-1])

    def _show_trials(self) -> None:
        """What was queued from here, and every real step of this run with its forecast."""
        rows = [{"queued": job.label, "state": job.state + (f": {job.errors}" if job.state == "failed" else "")}
                for job in self.jobs.all]  # fmt: skip
        frame = pd.DataFrame(rows, columns=["queued", "state"])
        trials = real_steps(self._lab.run)
        if len(trials):
            names = [f"step {step}: {what}" for step, what in zip(trials["step"], trials["setting"], strict=True)]
            trials = trials.assign(queued=names, state="measured")
            frame = pd.concat([frame[frame["state"] != "done"], trials[["queued", "state", "forecast", "measured"]]])
        self.trials.show(
            frame,
            "Taken for real: forecast and measured ΔH, nats." if len(frame) else "Nothing was taken for real yet.",
        )


def compare(lab, other, words: str) -> pd.DataFrame:
    """The actual step and a setting, one row each.

    Pushes and gradient mass by sign of the advantage, tokens clipped and in the loss, and ΔH: as measured, and as
    forecast, measured + rate · (difference of the pushes), the rate fitted to the step as it was trained.
    """
    rows = []
    changed = "nothing changed" if words == "as trained" else words or "what-if"
    for name, outcome in (("as trained", lab.actual), (changed, other)):
        push = lab.push(outcome).numpy()
        side = {"positive": (outcome.advantage > 0).numpy(), "negative": (outcome.advantage < 0).numpy()}
        rows.append(
            {"setting": name, "push": push.mean()}
            | {f"push_{key}": push[mask].sum() / len(push) for key, mask in side.items()}
            | {f"mass_{key}": mass for key, mass in outcome.mass.items()}
            | {"clipped": int(outcome.clipped.sum()), "in the loss": int((outcome.weight != 0).sum())}
        )
    table = pd.DataFrame(rows)
    change, rate = fitted_rate(lab)
    table["forecast ΔH"] = [change, change + rate * (table["push"][1] - table["push"][0])]
    return table


def fitted_rate(lab) -> tuple[float, float]:
    """(measured ΔH, logit step per unit that fits the scored tokens best), NaN where nothing was scored again."""
    scored = lab.scored
    if not bool(scored.any()):
        return float("nan"), float("nan")
    tokens = lab.rollouts.tokens
    before = tokens.entropy_before if "entropy_before" in tokens else tokens.entropy
    change, push = (tokens.entropy_after.double() - before.double())[scored], lab.push(lab.actual)[scored]
    power = float(push @ push)
    return float(change.mean()), float(push @ change) / power if power > 0 else float("nan")


def describe(lab, other, table: pd.DataFrame, changed: int) -> str:
    """One sentence on what the setting changes."""
    was, now = table.iloc[0], table.iloc[1]
    count = len(lab.rollouts.tokens)
    mass = [
        f"A {sign} 0: {was[f'mass_{key}']:.4f} → {now[f'mass_{key}']:.4f}"
        for key, sign in (("positive", ">"), ("negative", "<"))
    ]
    words = f"{changed:,} of {count:,} tokens get another gradient; clipped {was['clipped']} → {now['clipped']}; "
    words += f"gradient mass of {', of '.join(mass)}"
    if np.isfinite(now["push"]):
        words += f"; predicted ΔH {was['push']:+.5f} → {now['push']:+.5f} nats per unit step"
    else:
        words += "; predicted ΔH not recorded (E[S] per token)"
    if np.isfinite(now["forecast ΔH"]):
        words += f"; ΔH measured {was['forecast ΔH']:+.5f}, forecast {now['forecast ΔH']:+.5f} nats"
    return words.replace("-0.", "−0.") + "."


def forecasts_path(run):
    """Forecasts made before their step was taken, one JSON line each."""
    return run.path / "branches" / "forecasts.jsonl"


def real_steps(run) -> pd.DataFrame:
    """Real steps of a run beside the latest forecast of each: step, setting, forecast, measured (nats)."""
    taken = [json.loads(path.read_text()) for path in sorted((run.path / "branches").glob("*.json"))]
    path = forecasts_path(run)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    made = {(f["step"], f["setting"]): f["forecast"] for f in map(json.loads, lines)}
    rows = [{"step": t["step"], "setting": t["setting"], "forecast": made.get((t["step"], t["setting"])),
             "measured": t["measured"]} for t in taken]  # fmt: skip
    return pd.DataFrame(rows, columns=["step", "setting", "forecast", "measured"])


def _first_line(error: ValueError) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "Value error" in line]
    return (told or lines)[0].split("Value error, ")[-1].split(" [type=")[0]
