"""Tables refuse ragged columns; segment operations equal pandas' group-bys."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from workbench.tables import Rollouts, Table, token_index


@st.composite
def rollouts(draw):
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=8))
    groups = draw(st.lists(st.integers(0, 2), min_size=len(lengths), max_size=len(lengths)))
    compact = np.unique(groups, return_inverse=True)[1].tolist()
    length = torch.tensor(lengths)
    sequence, position = token_index(length)
    seed = draw(st.integers(0, 99))
    values = torch.randn(len(sequence), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    sequences = Table(group=torch.tensor(compact), length=length, text=[f"s{i}" for i in range(len(lengths))])
    return Rollouts([], sequences, Table(sequence=sequence, position=position, value=values))


def test_columns_must_be_one_dimensional_and_equally_long():
    with pytest.raises(ValueError, match="'b' has 2 rows, the table has 3"):
        Table(a=torch.zeros(3), b=["x", "y"])
    with pytest.raises(ValueError, match="1-D"):
        Table(a=torch.zeros(3, 1))


def test_a_missing_column_is_named():
    with pytest.raises(AttributeError, match="no column 'reward'"):
        _ = Table(a=torch.zeros(1)).reward


@given(rollouts())
def test_sums_and_means_by_sequence(r):
    frame = pd.DataFrame({"s": r.tokens.sequence.numpy(), "v": r.tokens.value.numpy()})
    np.testing.assert_allclose(r.sum_by_sequence(r.tokens.value), frame.groupby("s")["v"].sum(), atol=1e-12)
    np.testing.assert_allclose(r.mean_by_sequence(r.tokens.value), frame.groupby("s")["v"].mean(), atol=1e-12)


@given(rollouts())
def test_group_statistics(r):
    values = r.sum_by_sequence(r.tokens.value)
    by_group = pd.Series(values.numpy()).groupby(r.sequences.group.numpy())
    np.testing.assert_allclose(r.group_mean(values), by_group.transform("mean"), atol=1e-12)
    np.testing.assert_allclose(r.group_std(values), by_group.transform("std").fillna(0), atol=1e-9)
    coarse = values.round()
    constant = pd.Series(coarse.numpy()).groupby(r.sequences.group.numpy()).transform("nunique") == 1
    assert r.group_is_constant(coarse).tolist() == constant.tolist()


@given(rollouts(), st.randoms())
def test_selection_keeps_a_sequence_and_its_tokens_together(r, rng):
    rows = [i for i in range(len(r.sequences)) if rng.random() < 0.6] or [0]
    rng.shuffle(rows)
    chosen = r.select_sequences(torch.tensor(rows))
    assert chosen.sequences.text == [f"s{i}" for i in rows]
    for place, row in enumerate(rows):
        mine = chosen.tokens.value[chosen.tokens.sequence == place]
        assert torch.equal(mine, r.tokens.value[r.tokens.sequence == row])
    assert torch.equal(chosen.broadcast_to_tokens(torch.arange(len(rows))), chosen.tokens.sequence)


def test_selection_by_mask_equals_selection_by_index():
    r = Rollouts([], Table(length=torch.tensor([2, 1, 3])), Table(sequence=torch.tensor([0, 0, 1, 2, 2, 2])))
    by_mask = r.select_sequences(torch.tensor([True, False, True]))
    by_index = r.select_sequences(torch.tensor([0, 2]))
    assert torch.equal(by_mask.tokens.sequence, by_index.tokens.sequence)
    assert by_mask.tokens.sequence.tolist() == [0, 0, 1, 1, 1]
