"""Probability × advantage of the step's tokens, with a brush."""

import ipywidgets
import numpy as np
import pandas as pd

from workbench.plots import inside, quadrants
from workbench.widgets.views.base import View

STRINGS = 60
CORNERS = {
    "all tokens": None,
    "likely, rewarded": ((-1.0, 0.1), (1e-9, 1e9)),
    "unlikely, rewarded": ((-99.0, -1.0), (1e-9, 1e9)),
    "likely, punished": ((-1.0, 0.1), (-1e9, -1e-9)),
    "unlikely, punished": ((-99.0, -1.0), (-1e9, -1e-9)),
}
"""Selections for the keyboard: probability above or below a half, sign of the advantage."""


class QuadrantView(View):
    """Brush tokens: where they stand in the text, their share of ΔH and of the gradient, and which strings they are."""

    title = "Quadrants"
    explains = "Drag a box over tokens, or choose a quadrant: they are outlined in the text and counted in the table."

    def __init__(self, explorer):
        super().__init__(explorer)
        self.corner = ipywidgets.Dropdown(options=list(CORNERS), description="select")
        self.corner.observe(lambda _change: self._choose(), "value")
        self.controls.children = (ipywidgets.HBox([self.corner]), self.note)

    def draw(self) -> None:
        self._choose(redraw=True)

    def _choose(self, redraw: bool = False) -> None:
        box = CORNERS[self.corner.value]
        self._show(np.ones(len(self._tokens()), bool) if box is None else self._inside(*box), box is not None, redraw)

    def _brushed(self, xrange, yrange) -> None:
        self._show(self._inside(xrange, yrange), True)

    def _inside(self, xrange, yrange) -> np.ndarray:
        tokens = self._tokens()
        return inside(np.exp(tokens["old_logp"]), tokens["advantage"], xrange, yrange)

    def _tokens(self) -> pd.DataFrame:
        tokens = self.explorer.tables().tokens
        if lacking := [name for name in ("old_logp", "advantage") if name not in tokens]:
            raise ValueError(f"Not recorded: {', '.join(lacking)} per token; the quadrants need them.")
        return tokens

    def _show(self, mask: np.ndarray, mark: bool, redraw: bool = True) -> None:
        tables, tokens = self.explorer.tables(), self._tokens()
        table, words = selection(tables, mask)
        self.say(f"{words} {'' if mark else self.explains}")
        if redraw or not mark:
            fig = quadrants(np.exp(tokens["old_logp"]), tokens["advantage"], tables.step, tables.numbers("entropy"))
            self.explorer.detail.show(fig, table, brushed=self._brushed)
        else:
            self.explorer.detail.table(table)
        if mark:
            self.explorer.detail.unfold()
        self.explorer.mark(mask if mark else None, "selected tokens")


def selection(tables, mask: np.ndarray) -> tuple[pd.DataFrame, str]:
    """The most frequent strings among selected tokens [N] of a step, and one sentence on their shares.

    Table: token string, count, share of selection, mean entropy, ΔH (its part of the step's ΔH, nats), gradient mass
    (share of Σ|w·r·A| over tokens that were not clipped).
    """
    tokens = tables.tokens
    change, mass = tables.numbers("change"), gradient_mass(tokens)
    names = tokens["piece"] if "piece" in tokens else tokens["token"].astype(str)
    scored = np.isfinite(change).sum() if change is not None else 0
    own = pd.DataFrame({"token string": names[mask].to_numpy(), "entropy": tables.numbers("entropy")[mask]})
    own["ΔH"] = np.nan if change is None else np.nan_to_num(change[mask]) / max(1, scored)
    own["gradient mass"] = mass[mask] / max(1e-12, mass.sum())
    grouped = own.groupby("token string", sort=False)
    table = grouped.agg(
        count=("entropy", "size"), entropy=("entropy", "mean"), ΔH=("ΔH", "sum"), mass=("gradient mass", "sum")
    )
    table.insert(1, "share", table["count"] / max(1, mask.sum()))
    table = table.rename(columns={"entropy": "mean entropy", "mass": "gradient mass"}).reset_index()
    table = table.sort_values("count", ascending=False, kind="stable").head(STRINGS)
    words = f"{mask.sum():,} of {len(mask):,} tokens ({mask.mean():.1%}), "
    words += f"{own['gradient mass'].sum():.1%} of the gradient mass"
    if scored:
        words += f", {own['ΔH'].sum():+.5f} of {np.nansum(change) / scored:+.5f} nats of ΔH".replace("-", "−")
    return table, words + "."


def gradient_mass(tokens: pd.DataFrame) -> np.ndarray:
    """|w·r·A| per token, 0 where clipped or in no update; |A| where the updates were not recorded."""
    size = tokens["advantage"].abs().to_numpy(dtype=float)
    if not {"ratio", "weight", "clip_low", "clip_high"} <= set(tokens):
        return size
    ratio, advantage = tokens["ratio"].to_numpy(dtype=float), tokens["advantage"].to_numpy(dtype=float)
    low = (advantage < 0) & (ratio < 1 - tokens["clip_low"].to_numpy(dtype=float))
    high = (advantage > 0) & (ratio > 1 + tokens["clip_high"].to_numpy(dtype=float))
    return np.where(low | high, 0.0, np.nan_to_num(size * ratio * tokens["weight"].to_numpy(dtype=float)))
