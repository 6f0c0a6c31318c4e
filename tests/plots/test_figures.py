"""Figures as data: traces, units, colours, meta, tables."""

import json
from itertools import pairwise

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.synthetic import metrics_row
from workbench import plots
from workbench.plots import theme


@pytest.fixture
def metrics():
    rng = np.random.default_rng(0)
    return pd.DataFrame([metrics_row(step, 40, rng) for step in range(1, 41)])


def trace(fig, name):
    (found,) = [t for t in fig.data if t.name == name]
    return found


def panel_titles(fig):
    return [note.text for note in fig.layout.annotations]


def test_training_curves_draw_every_metric_over_the_same_steps(metrics):
    fig = plots.training_curves(metrics, run="cpu-1234")
    names = ["Entropy, raw", "Entropy, EMA 0.6", "Reward", "Response length", "clipped low", "clipped high"]
    assert [t.name for t in fig.data] == names
    for shown in fig.data:
        np.testing.assert_array_equal(shown.x, metrics["step"])
        assert shown.xaxis is None or shown.xaxis == "x"
    np.testing.assert_array_equal(trace(fig, "Reward").y, metrics["reward/mean"])
    np.testing.assert_array_equal(trace(fig, "Entropy, raw").y, metrics["entropy/mean"])
    assert [t.yaxis for t in fig.data] == ["y", "y", "y2", "y3", "y4", "y4"]
    assert fig.layout.meta["run"] == "cpu-1234" and fig.layout.meta["select"] == "step"


def test_panels_name_their_units_and_do_not_overlap(metrics):
    fig = plots.training_curves(metrics)
    titles = panel_titles(fig)
    assert "nats per token" in titles[0] and "tokens" in titles[2] and "fraction" in titles[3]
    assert fig.layout.xaxis.title.text == "rollout step"
    domains = [fig.layout[axis].domain for axis in ("yaxis", "yaxis2", "yaxis3", "yaxis4")]
    assert domains[0][1] == 1 and domains[-1][0] == pytest.approx(0, abs=1e-9)
    assert all(upper[0] - lower[1] == pytest.approx(0.075) for upper, lower in pairwise(domains))
    assert max(high - low for low, high in domains) == domains[0][1] - domains[0][0]


def test_metrics_that_were_not_recorded_leave_no_empty_panel(metrics):
    fig = plots.training_curves(metrics[["step", "entropy/mean"]])
    assert len(fig.layout.annotations) == 1 and len(fig.data) == 2
    with pytest.raises(ValueError, match="none of the columns entropy/mean"):
        plots.training_curves(metrics[["step"]])


def test_reference_is_dotted_smoothed_and_limited_to_the_runs_steps(metrics):
    published = plots.published_curve()
    fig = plots.training_curves(metrics, reference=published)
    reference = trace(fig, published["label"].iloc[0])
    assert reference.line.dash == "dot" and list(reference.x) == list(range(1, 41))
    np.testing.assert_allclose(reference.y, plots.ema(published["value"])[:40])


def test_any_metric_can_be_drawn_and_a_missing_one_is_named(metrics):
    fig = plots.metric_curve(metrics, "clip/low_fraction", run="run-1")
    assert [trace.name for trace in fig.data] == ["clipped low, raw", "clipped low, EMA 0.6"]
    np.testing.assert_allclose(fig.data[0].y, metrics["clip/low_fraction"])
    assert "clipped low, fraction of tokens" in plots.summary(fig)
    with pytest.raises(ValueError, match="no column 'entropy/mena'"):
        plots.metric_curve(metrics, "entropy/mena")


def test_entropy_by_sign_differs_in_dash_as_well_as_colour(metrics):
    fig = plots.entropy_by_sign(metrics)
    positive, negative = trace(fig, "A > 0, EMA 0.6"), trace(fig, "A < 0, EMA 0.6")
    assert positive.line.dash != negative.line.dash and positive.line.color != negative.line.color
    with pytest.raises(ValueError, match="lacks entropy/negative"):
        plots.entropy_by_sign(metrics[["step", "entropy/positive"]])


def passk_table(sets=("reduce",)):
    rows = [
        (step, name, k, value, value - 0.05, value + 0.05)
        for name in sets
        for step, base in ((0, 0.2), (20, 0.3), (60, 0.5))
        for k, value in ((1, base), (2, base + 0.1), (4, base + 0.2))
    ]
    return pd.DataFrame(rows, columns=["step", "set", "k", "value", "low", "high"])


def test_pass_at_k_compares_first_and_last_evaluation():
    fig = plots.pass_at_k(passk_table())
    before, after = trace(fig, "before training"), trace(fig, "after 60 steps")
    assert list(before.y) == pytest.approx([0.2, 0.3, 0.4]) and list(after.y) == pytest.approx([0.5, 0.6, 0.7])
    assert fig.layout.xaxis.type == "log" and list(fig.layout.xaxis.tickvals) == [1, 2, 4]
    band = trace(fig, "95 % band, before training")
    assert list(band.y) == pytest.approx([0.25, 0.35, 0.45, 0.35, 0.25, 0.15]) and band.fill == "toself"
    assert before.line.dash != after.line.dash


def test_pass_at_k_has_one_panel_per_set_and_one_legend_entry_per_moment():
    fig = plots.pass_at_k(passk_table(("reduce", "countdown", "longer", "shorter")))
    assert sum("pass@k on" in text for text in panel_titles(fig)) == 4
    assert sum(bool(t.showlegend) for t in fig.data) == 2
    assert len(plots.data_table(fig).columns) == 1 + 2 * 4
    with pytest.raises(ValueError, match="empty table"):
        plots.pass_at_k(passk_table().iloc[:0])


def test_pass_at_k_of_a_single_evaluation_draws_one_curve():
    table = passk_table()
    assert [t.name for t in plots.pass_at_k(table[table["step"] == 0]).data if t.showlegend] == ["before training"]


def test_data_table_gives_back_the_numbers_also_after_a_round_trip_through_json(metrics):
    fig = plots.training_curves(metrics)
    for shown in (fig, go.Figure(json.loads(fig.to_json()))):
        table = plots.data_table(shown)
        np.testing.assert_array_equal(table["rollout step"], metrics["step"])
        np.testing.assert_array_equal(table["Response length"], metrics["length/mean"])


def test_summary_names_first_and_last_values_with_units(metrics):
    text = plots.summary(plots.training_curves(metrics))
    assert f"reward {metrics['reward/mean'].iloc[0]:.3g} → {metrics['reward/mean'].iloc[-1]:.3g}" in text
    assert "nats per token" in text and "Rollout steps 1 to 40" in text
    assert plots.summary(go.Figure()) == ""


def test_published_curve_carries_its_source_and_mark():
    curve = plots.published_curve()
    assert len(curve) == 402 and curve["value"].iloc[0] == 0.3554 and curve["value"].iloc[-1] == 0.0176
    assert "2511.05993" in curve.attrs["source"] and "S-dig" in curve.attrs["note"]
    with pytest.raises(ValueError, match=r"nearest is '2511\.05993-grpo-n4-entropy'"):
        plots.published_curve("2511.05993-grpo")


def test_long_runs_are_thinned_and_say_so():
    steps = np.arange(1, 10_001)
    values = np.full(10_000, 0.3)
    values[7_777] = 5.0
    fig = plots.training_curves(pd.DataFrame({"step": steps, "entropy/mean": values}))
    raw = trace(fig, "Entropy, raw")
    assert len(raw.x) <= 2000 and max(raw.y) == 5.0
    assert any("of 10,000 points" in text for text in panel_titles(fig))
    assert "of 10,000 points" in plots.summary(fig)


@given(st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(float("nan"))), min_size=1, max_size=300), st.integers(10, 60))
def test_thinning_keeps_ends_and_extremes_within_the_limit(values, limit):
    values = np.array(values)
    kept = plots.thin(values, limit)
    assert len(kept) <= limit or len(values) <= limit
    assert kept[0] == 0 and kept[-1] == len(values) - 1 and (np.diff(kept) > 0).all()
    if not np.isnan(values).all():
        assert np.nanmax(values[kept]) == np.nanmax(values) and np.nanmin(values[kept]) == np.nanmin(values)


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=40))
def test_ema_is_the_closed_form_weighted_sum(values):
    n = len(values) - 1
    expected = 0.6**n * values[0] + sum(0.4 * 0.6 ** (n - i) * v for i, v in enumerate(values) if i > 0)
    assert plots.ema(values)[-1] == pytest.approx(expected, abs=1e-9)


def test_ema_carries_over_missing_values():
    np.testing.assert_allclose(plots.ema([np.nan, 1.0, np.nan, 2.0]), [np.nan, 1.0, 1.0, 1.4])


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return np.dot([0.2126, 0.7152, 0.0722], linear)


@pytest.mark.parametrize("page", ["#ffffff", "#111111"])
def test_text_and_first_colours_are_legible_on_light_and_dark_pages(page):
    def contrast(colour):
        high, low = sorted((luminance(colour), luminance(page)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    assert contrast(theme.TEXT) >= 4.25
    assert all(contrast(colour) >= 3 for colour in theme.OKABE_ITO[:3])
