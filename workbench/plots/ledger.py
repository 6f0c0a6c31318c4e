"""The entropy ledger of a step as a waterfall, with its forecast and what the forecast leaves over."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from workbench.plots.describe import describe
from workbench.plots.text import plain
from workbench.plots.theme import OKABE_ITO, TEXT, axis, faint, figure, panel_title

DOWN, UP, TOTAL = OKABE_ITO[0], OKABE_ITO[1], "#8a8a8a"


def waterfall(table: pd.DataFrame, change: float, division: str, step: int, note: str = "") -> go.Figure:
    """ΔH of a step by parts: measured as a waterfall that ends at ΔH; below it predicted and residual, side by side.

    `table`: `part`, `tokens`, `measured`, `predicted`, `residual` (nats), as in `metrics.ledger`. Falling entropy is
    blue, rising entropy orange, and every bar is labelled with its sign. `note` goes under the title.
    """
    parts = [plain(part, 24) for part in table["part"]]
    labels = [f"{index + 1}. {part}" for index, part in enumerate(parts)] if len(set(parts)) < len(parts) else parts
    fig = figure(520, showlegend=True, margin_t=56, hovermode="x unified", bargap=0.25)
    fig.add_trace(_steps(labels, table, change))
    known = table["predicted"].notna().any()
    if known:
        for name, colour, pattern in (("predicted", OKABE_ITO[2], ""), ("residual", OKABE_ITO[3], "/")):
            fig.add_bar(
                x=labels,
                y=table[name],
                name=name,
                marker={"color": colour, "pattern": {"shape": pattern, "solidity": 0.35}},
                yaxis="y2",
                hovertemplate="%{y:+.3g} nats",
            )
    top = 0.52 if known else 0.0
    fig.layout.xaxis = axis(anchor="y2" if known else "y", tickangle=-30 if len(labels) > 5 else 0, type="category")
    fig.layout.yaxis = axis(domain=[top + 0.02, 1] if known else [0, 1], zeroline=True, zerolinecolor=TEXT)
    fig.layout.yaxis2 = axis(domain=[0, top - 0.14], zeroline=True, zerolinecolor=TEXT)
    fig.add_annotation(panel_title(f"ΔH of step {step} by {division}", f"nats per token  {note}", y=1))
    if known:
        fig.add_annotation(panel_title("First-order prediction and what it leaves", "nats per token", y=top - 0.14))
    fig.layout.legend = {"orientation": "h", "x": 1, "xanchor": "right", "y": top - 0.14, "yanchor": "bottom"}
    down = table.nsmallest(1, "measured").iloc[0]
    words = f"Entropy changed by {change:+.4f} nats in step {step}. "
    words += f"The lowest part is {down['measured']:+.4f}, {down['part']}"
    words = words.replace("-0.", "−0.")
    return describe(fig, words + (f"; {note}." if note else "."))


def _steps(labels, table, change) -> go.Waterfall:
    values = [*table["measured"], change]
    return go.Waterfall(
        x=[*labels, "ΔH"],
        y=values,
        measure=["relative"] * len(labels) + ["total"],
        text=[f"{v:+.4f}".replace("-", "−") for v in values],
        textposition="outside",
        cliponaxis=False,
        customdata=[*table["tokens"], int(table["tokens"].sum())],
        hovertemplate="%{text} nats, %{customdata:,} tokens",
        increasing={"marker": {"color": UP}},
        decreasing={"marker": {"color": DOWN}},
        totals={"marker": {"color": TOTAL}},
        connector={"line": {"color": faint("#888888", 0.5), "width": 1}},
        name="measured",
        showlegend=False,
    )


def forecast_bars(table: pd.DataFrame, step: int) -> go.Figure:
    """Actual against what-if: predicted ΔH by sign of the advantage, and the gradient mass of either sign.

    `table`: one row per setting with `setting`, `push_positive`, `push_negative`, `push` (nats per unit step; NaN where
    unknown), `mass_positive`, `mass_negative`.
    """
    fig = figure(340, barmode="relative", margin_t=56, showlegend=True)
    names = [plain(name, 46) for name in table["setting"]]
    for side, colour, pattern in (("positive", OKABE_ITO[1], ""), ("negative", OKABE_ITO[0], "/")):
        for kind, y in (("push", "y"), ("mass", "y2")):
            sign = -1 if kind == "mass" and side == "negative" else 1
            fig.add_bar(
                x=sign * table[f"{kind}_{side}"],
                y=names,
                orientation="h",
                name=f"A {'>' if side == 'positive' else '<'} 0",
                legendgroup=side,
                showlegend=kind == "mass",
                marker={"color": colour, "pattern": {"shape": pattern, "solidity": 0.3}},
                xaxis="x" if kind == "push" else "x2",
                yaxis=y,
                hovertemplate="%{x:+.4g}",
            )
    fig.add_scatter(
        x=table["push"], y=names, mode="markers", name="net", xaxis="x", yaxis="y",
        marker={"symbol": "diamond", "size": 12, "color": TEXT, "line": {"width": 1.5, "color": "#ffffff"}},
        hovertemplate="net %{x:+.4g}",
    )  # fmt: skip
    ends = {"zeroline": True, "zerolinecolor": TEXT}
    fig.layout.xaxis = axis(domain=[0, 0.46], anchor="y", title="nats per unit step on a logit", **ends)
    fig.layout.xaxis2 = axis(domain=[0.54, 1], anchor="y2", title="Σ|g| / N; A < 0 drawn to the left", **ends)
    fig.layout.yaxis = axis(anchor="x", autorange="reversed", type="category")
    fig.layout.yaxis2 = axis(anchor="x2", autorange="reversed", type="category", showticklabels=False)
    fig.add_annotation(panel_title("Predicted ΔH, first order", "", y=1))
    fig.add_annotation(panel_title("Gradient mass", "", y=1, x=0.54))
    last = table.iloc[-1]
    words = f"Step {step}, one step, first order. {last['setting']}: predicted {last['push']:+.3g} "
    words += f"against {table.iloc[0]['push']:+.3g} nats per unit step as trained"
    return describe(fig, words.replace("nan", "not known").replace("-0.", "−0.") + ".")


def forecast_scatter(table: pd.DataFrame) -> go.Figure:
    """Measured ΔH of real steps against their forecast: `forecast` (nats), `measured` (nats), `setting`, `step`."""
    fig = figure(380, hovermode="closest")
    low, high = (float(f(table[["forecast", "measured"]].to_numpy())) for f in (np.nanmin, np.nanmax))
    fig.add_scatter(
        x=[low, high], y=[low, high], mode="lines", name="forecast = measured", line={"dash": "dot", "color": TEXT}
    )
    for index, (setting, rows) in enumerate(table.groupby("setting", sort=False)):
        fig.add_scatter(
            x=rows["forecast"], y=rows["measured"], mode="markers", name=plain(setting, 40), text=rows["step"],
            marker={"size": 9, "color": OKABE_ITO[index % len(OKABE_ITO)], "symbol": index},
            hovertemplate="step %{text}: forecast %{x:+.4f}, measured %{y:+.4f}",
        )  # fmt: skip
    fig.update_layout(xaxis=axis(title="forecast ΔH, nats"), yaxis=axis(), margin_t=56)
    fig.add_annotation(panel_title("Measured ΔH of real steps", "nats", y=1))
    return describe(fig, f"Forecast and measured change of entropy of {len(table)} real steps.")
