"""The tokenizer: one token per number, exact round trip, loadable as any other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, Qwen2Config

from workbench.policy.tokenizer import END_MARKS, SYMBOLS, build_tokenizer, end_mark_ids

TOKENIZER = build_tokenizer()
pieces = st.sampled_from([*END_MARKS, *SYMBOLS]) | st.integers(0, 99).map(str)


def test_every_number_is_one_token():
    ids = [TOKENIZER(str(number))["input_ids"] for number in range(100)]
    assert all(len(tokens) == 1 for tokens in ids)
    assert len({tokens[0] for tokens in ids}) == 100
    assert len(TOKENIZER) == 112


@given(st.lists(pieces, max_size=40).map("".join))
def test_decoding_an_encoding_gives_the_text_back(text):
    ids = TOKENIZER(text)["input_ids"]
    assert TOKENIZER.decode(ids) == text
    assert len(ids) <= len(text)


def test_tokens_of_the_two_tasks():
    assert TOKENIZER.tokenize("2+12*3=38#") == ["2", "+", "12", "*", "3", "=", "38", "#"]
    assert TOKENIZER.tokenize("7,8>56:7*8=56!") == ["7", ",", "8", ">", "56", ":", "7", "*", "8", "=", "56", "!"]


@pytest.mark.parametrize("text", ["a", "٣", "²", "３", " ", "\n", "\0", "<", "pad"])
def test_text_outside_the_alphabet_has_no_tokens(text):
    assert TOKENIZER(text)["input_ids"] == []


def test_beside_a_qwen2_model_it_is_loaded_as_it_was_saved(tmp_path):
    """`AutoTokenizer` picks the class by the model's type there, which must not change a single token."""
    Qwen2Config().save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "13,7,8>99:13*7=91,91+8=99!"
    assert loaded.get_vocab() == TOKENIZER.get_vocab()
    assert loaded(text)["input_ids"] == TOKENIZER(text)["input_ids"]
    assert loaded.decode(loaded(text)["input_ids"]) == text
    assert len(loaded) == len(TOKENIZER) == 112
    assert (loaded.pad_token, loaded.eos_token) == ("<pad>", "#")
    assert end_mark_ids(loaded) == [loaded.get_vocab()[mark] for mark in "#!?"]
