"""One look for every figure: colours, typography and the units that titles carry.

Colours are colour-blind safe: Okabe-Ito for categories, cividis for entropy, PuOr around a fixed 0 for signed values.
Backgrounds are transparent and the text is a mid grey with at least 4.3:1 contrast on white and on JupyterLab's dark
background, so that one figure serves both; exported reports repaint the text in the page's own colour.
"""

import plotly.graph_objects as go

from workbench.plots.text import plain

# Okabe & Ito (2008), ordered so that the first four keep >= 3:1 contrast on white and on near-black.
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#999999")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")
ENTROPY_SCALE = "Cividis"
SIGNED_SCALE = "PuOr"

TEXT = "#7a7a7a"
GRID = "rgba(128,128,128,0.22)"
REFERENCE = "#999999"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"

UNITS = {
    "entropy/mean": ("Entropy", "nats per token"),
    "entropy/positive": ("A > 0", "nats per token"),
    "entropy/negative": ("A < 0", "nats per token"),
    "reward/mean": ("Reward", "mean per response"),
    "length/mean": ("Response length", "tokens"),
    "clip/low_fraction": ("clipped low", "fraction of tokens"),
    "clip/high_fraction": ("clipped high", "fraction of tokens"),
    "group/distinct_correct": ("Distinct correct derivations", "per group"),
    "group/zero_variance_fraction": ("Zero-variance groups", "fraction of groups"),
}


def faint(colour: str, alpha: float = 0.28) -> str:
    """`#rrggbb` as an rgba() colour with opacity `alpha`."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha})"


def axis(title: str | None = None, **settings) -> dict:
    """Axis settings shared by all panels; `settings` win."""
    return {
        "title": {"text": title, "font": {"size": 13}, "standoff": 8},
        "tickfont": {"size": 12},
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": GRID,
        "ticks": "outside",
        "tickcolor": GRID,
        "ticklen": 4,
        "automargin": True,
    } | settings


def step_axis(**settings) -> dict:
    """The x axis of everything over training."""
    return axis(title="rollout step", unifiedhovertitle={"text": "rollout step %{x}"}, **settings)


def figure(height: int, **layout) -> go.Figure:
    """An empty figure in the house style, `height` pixels tall and as wide as its container."""
    base = {
        "template": "none",
        "height": height,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 13, "color": TEXT},
        "colorway": list(OKABE_ITO),
        "margin": {"l": 56, "r": 20, "t": 48, "b": 48},
        "legend": {"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"},
        "hoverlabel": {"font": {"family": FONT}},
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": TEXT, "activecolor": OKABE_ITO[0]},
    }
    return go.Figure(layout=base | layout)


def panel_title(text: str, unit: str, y: float, x: float = 0.0, xref: str = "paper") -> dict:
    """Annotation that names a panel and its unit, above the panel's top left corner (paper coordinates). `text` may be
    a metric's name from a file; it stays text."""
    return {
        "text": f"<b>{plain(text, 90)}</b>  {unit}",
        "x": x,
        "y": y,
        "xref": xref,
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
        "yshift": 3,
        "showarrow": False,
    }
