"""The token view: rollouts of a kept step, token by token, as a live widget or static HTML. One ESM file draws both."""

import json
from html import escape
from importlib.resources import files

import anywidget
import traitlets

from workbench.widgets import token_data
from workbench.widgets.frontend import live_front_end

ASSETS = files("workbench.widgets")


class TokenView(anywidget.AnyWidget):
    """Live token view of `run`; steps load when they are selected.

    Set `view.step` to any step: the nearest kept one is shown. A click on a training curve of the run does that too.
    """

    _esm = (ASSETS / "token_view.js").read_text()
    _css = (ASSETS / "token_view.css").read_text()
    header = traitlets.Dict().tag(sync=True)
    step = traitlets.Int().tag(sync=True)
    frame = traitlets.Dict().tag(sync=True)

    def __init__(self, run, groups: int = token_data.GROUPS, rollouts: int = token_data.ROLLOUTS):
        self._run, self._groups, self._rollouts = run, groups, rollouts
        header = token_data.header(run)
        first = header["steps"][0]
        super().__init__(header=header, step=first, frame=self._load(first))

    def _load(self, step: int) -> dict:
        kept = min(self._run.rollout_steps, key=lambda other: abs(other - step))
        return token_data.frame(self._run, kept, self._groups, self._rollouts)

    @traitlets.observe("step")
    def _show(self, change):
        if change.old is not traitlets.Undefined and self.frame.get("step") != change.new:
            self.frame = self._load(change.new)


class StaticTokenView:
    """The same view as one piece of HTML that needs neither a kernel nor the network."""

    def __init__(self, run, groups: int = token_data.GROUPS, rollouts: int = token_data.ROLLOUTS):
        self.header = token_data.header(run)
        self.frames = token_data.static_frames(run, groups, rollouts)
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
