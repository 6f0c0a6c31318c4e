"""The live monitor: any run that trains, wherever it does, followed from its folder alone."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from html import escape
from pathlib import Path

import ipywidgets
import pandas as pd
from IPython.display import display

from workbench.store import Run, open_run
from workbench.widgets.data_table import DataTable
from workbench.widgets.live import LiveCurves, state_line
from workbench.widgets.token_view import TokenView

POLL = 1.0
"""Seconds between looks at the folder."""
ENDED = ("finished", "failed", "interrupted", "lost")
SIGNS = {"running": ("●", "#009E73"), "finished": ("✓", "#0072B2"), "stalled": ("▲", "#E69F00")}
DEAD = ("✗", "#D55E00")


class Heartbeat:
    """Says how long a run has been silent, by this machine's own clock: a shared folder's clock may differ."""

    def __init__(self):
        self._seen: float | None = None
        self._since = time.monotonic()

    def silence(self, beat: float | None) -> float:
        """Seconds since the heartbeat (modification time of status.json) was last seen to change."""
        now = time.monotonic()
        if beat != self._seen:
            first = self._seen is None and beat is not None
            self._seen, self._since = beat, now - (max(0.0, time.time() - beat) if first else 0.0)
        return now - self._since


class Monitor:
    """Curves, the methods' state and the newest rollouts of a run while it trains. Display it; `stop()` detaches.

    It reads files on a thread of its own, so no cell waits for it, and the run does not know of it. It detaches by
    itself when the run has ended.
    """

    def __init__(self, run, poll: float = POLL):
        self.run = run if isinstance(run, Run) else open_run(run)
        self.curves = LiveCurves(self.run.path)
        self.state = ipywidgets.HTML()
        self.measures = DataTable()
        self.follow = ipywidgets.Checkbox(value=True, description="follow the newest rollouts", indent=False)
        self.detach = ipywidgets.Button(description="detach", icon="unlink")
        self.detach.on_click(lambda _button: self.stop())
        self._tokens: TokenView | None = None
        self._token_box = ipywidgets.VBox()
        self._pulse, self._stopped, self._poll, self._last = Heartbeat(), threading.Event(), poll, ""
        numbers = ipywidgets.Accordion([self.measures], titles=("Controllers and all measures of the newest step",))
        controls = ipywidgets.HBox([self.follow, self.detach])
        self.widget = ipywidgets.VBox([self.state, self.curves.figure, numbers, controls, self._token_box])
        self.look()
        self._thread = threading.Thread(target=self._watch, name=f"monitor {self.run.id}", daemon=True)
        self._thread.start()

    def _ipython_display_(self) -> None:
        display(self.widget)

    def stop(self) -> None:
        """Detach: the view stays as it is, the run goes on."""
        self._stopped.set()
        self.detach.disabled = True

    def look(self) -> str:
        """Bring everything up to date; returns the state in words."""
        grew = self.curves.read()
        words, sign = self._state()
        if words != self._last:
            self._last = words
            mark, colour = SIGNS.get(sign, DEAD)
            self.state.value = (
                f'<p role="status" style="font-size:15px;margin:4px 0"><span style="color:{colour}">{mark}</span> '
                f"<b>{escape(self.run.id)}</b> {escape(words)}</p>"
            )
        if grew:
            self._show_measures(self.curves.metrics)
            self._show_rollouts()
        return words

    def _state(self) -> tuple[str, str]:
        """The state in words and as a key of `SIGNS`."""
        try:
            status = self.run.status
        except (OSError, ValueError):  # the file is being replaced
            return self._last, "running"
        silence = self._pulse.silence(status.get("heartbeat"))
        words = state_line(status | {"heartbeat": time.time() - silence})
        stalled = words.startswith("stalled")
        return words, "stalled" if stalled else status["state"]

    def _show_measures(self, metrics: pd.DataFrame) -> None:
        """The newest row, the methods' own measures first, and its change since the row before."""
        last = metrics.tail(2).T
        table = pd.DataFrame({"measure": last.index, "now": last.iloc[:, -1].to_numpy(dtype=float)})
        table["before"] = last.iloc[:, 0].to_numpy(dtype=float)
        table = table[table["measure"] != "step"]
        first = table["measure"].str.startswith("method/")
        self.measures.show(pd.concat([table[first], table[~first]]), f"Step {int(metrics['step'].iloc[-1])}.")

    def _show_rollouts(self) -> None:
        steps = self.run.rollout_steps
        if not steps:
            return
        if self._tokens is None:
            self._tokens = TokenView(self.run, groups=2, rollouts=4)
            self._token_box.children = (self._tokens,)
        else:
            self._tokens.refresh()
        if self.follow.value:
            self._tokens.step = steps[-1]

    def _watch(self) -> None:
        while not self._stopped.wait(self._poll):
            # Files may vanish or be half written under a reader's hands: the next look sees them whole.
            with contextlib.suppress(OSError, ValueError, KeyError, json.JSONDecodeError):
                words = self.look()
                if words.split(",")[0].split(" ")[0] in ENDED:
                    self.stop()


def watch(run, poll: float = POLL):
    """Follow `run` (Run, folder or id) while it trains: in this kernel's child process, under papermill, or on another
    machine that shares the folder. Outside a live front-end its curves as they stand are returned."""
    from workbench.plots import training_curves
    from workbench.widgets.frontend import live_front_end

    run = run if isinstance(run, Run) else open_run(Path(run))
    return Monitor(run, poll) if live_front_end() else training_curves(run.metrics, run=run.id)
