"""The film-strip: fixed responses scored at every kept checkpoint."""

import ipywidgets
import pandas as pd

from workbench.plots import film_strip
from workbench.widgets.views.base import View

VERBS = {"dies": "die", "appears": "appear", "stays": "stay"}


class StripView(View):
    """Rows are checkpoints, columns tokens; scoring takes seconds and is kept beside the run."""

    title = "Film-strip"
    explains = "One response, teacher-forced at every checkpoint: ▼ a fork dies, ▲ one appears, ○ one stays."
    tokens = False

    def __init__(self, explorer):
        super().__init__(explorer)
        self.response = ipywidgets.IntSlider(description="response", min=1, max=8, continuous_update=True)
        self.response.observe(lambda _change: self.explorer.redraw(), "value")
        self.controls.children = (ipywidgets.HBox([self.response]), self.note)
        self._strips: dict[str, pd.DataFrame] = {}

    def draw(self) -> None:
        from workbench.training.probe import cached_strip, forks

        run = self.explorer.run
        if run.id not in self._strips:
            self.say(f"Scoring the probe at {len(run.checkpoints) + 1} checkpoints …")
            self._strips[run.id] = cached_strip(run)
        strip = self._strips[run.id]
        self.response.max = int(strip["response"].max()) + 1
        own = strip[strip["response"] == self.response.value - 1]
        table = own.pivot(index="step", columns="position", values="entropy")
        pieces = own.drop_duplicates("position").sort_values("position")["piece"]
        what = forks(table.to_numpy())
        counts = pd.Series(list(what.values()), dtype=object).value_counts().to_dict()
        every = [forks(part.pivot(index="step", columns="position", values="entropy").to_numpy())
                 for _, part in strip.groupby("response")]  # fmt: skip
        died = sum(kind == "dies" for part in every for kind in part.values())
        here = ", ".join(f"{counts.get(kind, 0)} {verb}" for kind, verb in VERBS.items())
        there = f"over all {len(every)} responses {died} of {sum(map(len, every))} forks die"
        self.say(f"{self.explains} Here {here}; {there}.")
        ceiling = max(0.25, float(strip["entropy"].quantile(0.99)))
        fig = film_strip(table.to_numpy(), list(table.index), list(pieces), what, ceiling, own["prompt_text"].iloc[0])
        numbers = table.T.set_axis([f"step {step}" for step in table.index], axis=1)
        numbers.insert(0, "token", pieces.to_numpy())
        numbers.insert(1, "fork", [what.get(i, "") for i in range(len(numbers))])
        self.explorer.detail.show(fig, numbers)
