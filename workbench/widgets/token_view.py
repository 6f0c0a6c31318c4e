"""The token view: rollouts of a kept step, token by token, as a live widget or static HTML. One ESM file draws both."""

import json
from html import escape
from importlib.resources import files

import anywidget
import numpy as np
import traitlets

from workbench.widgets import token_data
from workbench.widgets.frontend import live_front_end
from workbench.widgets.static_frames import static_frames

ASSETS = files("workbench.widgets")


class TokenView(anywidget.AnyWidget):
    """Live token view of `run`. Only the page of rollouts on show travels to the browser, as binary columns.

    Set `view.step` to any step: the nearest kept one is shown. A click on a training curve of the run does that too.
    `view.mark(mask)` sets tokens of the step apart; `view.show_run(run)` shows another run.
    """

    _esm = (ASSETS / "token_view.js").read_text()
    _css = (ASSETS / "token_view.css").read_text()
    header = traitlets.Dict().tag(sync=True)
    step = traitlets.Int().tag(sync=True)
    request = traitlets.Dict().tag(sync=True)
    frame = traitlets.Dict().tag(sync=True)
    whole = traitlets.Dict().tag(sync=True)
    """the full text of one response, asked for by its row: {"row", "text"}"""

    def __init__(
        self, run, groups: int = token_data.GROUPS, rollouts: int = token_data.ROLLOUTS, step: int | None = None
    ):
        self._groups, self._rollouts = groups, rollouts
        self._held, self._marks = None, None
        self._run, header = run, token_data.header(run)
        frame = self._page(header["steps"][0] if step is None else step, {})
        super().__init__(header=header, step=frame["step"], request={}, frame=frame)
        self.on_msg(self._answer)

    def show_run(self, run, step: int | None = None) -> None:
        """Show another run, at `step` or the nearest kept one. Raises `ValueError` if it kept no rollouts."""
        header = token_data.header(run)
        self._run, self._held, self._marks = run, None, None
        with self.hold_sync():
            self.header = header
            self._show(header["steps"][0] if step is None else step, {})

    def refresh(self) -> None:
        """Take in the steps since; the one on show stays."""
        self.header = self.header | token_data.course(self._run)

    def mark(self, mask, words: str = "") -> None:
        """Set tokens apart: bool [N] over the token table of the step on show, None for none; `words` says what they
        are. The page then shows the responses that hold them first."""
        self._marks = None if mask is None else (self.step, np.asarray(mask, dtype=bool))
        with self.hold_sync():
            self.header = self.header | {"marks": words}
            self._show(self.step, {**self.request, "marked": mask is not None, "offset": 0})

    @property
    def tables(self) -> token_data.StepTables:
        """The step on show."""
        return self._held

    @traitlets.observe("step")
    def _step_changed(self, change):
        if change.old is not traitlets.Undefined and self.frame.get("step") != change.new:
            self._show(change.new, self.request)

    @traitlets.observe("request")
    def _asked(self, change):
        if change.old is not traitlets.Undefined and change.new != self.frame.get("request"):
            self._show(change.new.get("step", self.step), change.new)

    def _show(self, step: int, request: dict) -> None:
        self.frame = self._page(step, request)
        self.request = request
        self.step = self.frame["step"]

    def _page(self, step: int, given: dict) -> dict:
        kept = min(self._run.rollout_steps, key=lambda other: abs(other - step))
        if self._held is None or self._held.step != kept:
            self._held = token_data.load(self._run, kept)
        marks = self._marks[1] if self._marks and self._marks[0] == kept else None
        request = token_data.Request.read(given)
        limit = max(token_data.MIN_TOKENS_PER_ROLLOUT, token_data.PAGE_TOKENS // (self._groups * self._rollouts))
        frame = token_data.frame(self._held, kept, self._groups, self._rollouts, limit, request, marks)
        frame["columns"] = {name: values.tobytes() for name, values in frame["columns"].items()}
        return frame | {"request": given, "pinned_steps": self._pinned_steps(request), "marked": marks is not None}

    def _pinned_steps(self, request: token_data.Request) -> list[int]:
        if not request.pinned:
            return []
        where = token_data.steps_by_prompt(self._run)
        return sorted({step for key in request.pinned for step in where.get(key, ())})

    def _answer(self, _widget, message: dict, _buffers) -> None:
        """The front-end asks for the whole text of a response."""
        row = message.get("whole")
        if isinstance(row, int) and self._held is not None and 0 <= row < len(self._held.sequences):
            text = token_data.clean(self._held.sequences.iloc[row].get("text", ""))
            self.whole = {"row": row, "text": text}


class StaticTokenView:
    """The same view as one piece of HTML that needs neither a kernel nor the network."""

    def __init__(self, run, groups: int = token_data.GROUPS, rollouts: int = token_data.ROLLOUTS):
        self.header = token_data.header(run)
        self.frames = static_frames(run, groups, rollouts)
        self.header["steps"] = [frame["step"] for frame in self.frames]

    def _repr_html_(self) -> str:
        return static_html(self.header, self.frames)

    def __repr__(self) -> str:
        return f"Token view of run {self.header['run']}: {len(self.frames)} kept steps (shown in HTML)"


def token_view(run, groups: int = token_data.GROUPS, rollouts: int = token_data.ROLLOUTS):
    """Rollouts of `run` coloured by entropy: a live widget where somebody watches, static HTML otherwise.

    Shows the first `groups` prompts x `rollouts` responses of each kept step. Raises ValueError without kept rollouts.
    """
    view = TokenView if live_front_end() else StaticTokenView
    return view(run, groups, rollouts)


def static_html(header: dict, frames: list[dict]) -> str:
    """HTML fragment with data, style and code inline. Text of prompts and responses sits in a JSON block only, in which
    `<` is written \\u003c, so that no model output can end the block; the script puts it on the page as text nodes."""
    data = json.dumps({"header": header, "frames": frames}, separators=(",", ":")).replace("<", "\\u003c")
    css = (ASSETS / "token_view.css").read_text()
    esm = (ASSETS / "token_view.js").read_text()
    return (
        f'<div class="wb-tokens" data-run="{escape(header["run"], quote=True)}">'
        f'<style>{css}</style><script type="application/json">{data}</script>'
        "<noscript>The token view needs JavaScript.</noscript></div>"
        f'<script type="module">{esm}\nmountAll();</script>'
    )
