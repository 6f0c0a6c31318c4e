"""The bundled policy's tokenizer: each number 0-99 is one token, and so is each symbol of the two tasks."""

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

PAD = "<pad>"
END_MARKS = ("#", "!", "?")  # each ends a response: reduce's end, countdown's solved and giving up
SYMBOLS = ("+", "-", "*", "=", ",", ">", ":", ";")


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of 112 tokens that is saved and loaded like any other Hugging Face tokenizer.

    Decoding gives back every text over its alphabet, character by character. Text outside the alphabet has no tokens.
    `eos_token` is `#`; the model's `generation_config.eos_token_id` lists all three end marks. Decode with
    `skip_special_tokens=False` (the default), since the end mark belongs to the response.

    Transformers loads every tokenizer beside a `qwen2` model as `Qwen2Tokenizer`, which splits numbers into digits.
    Added tokens are matched before that split, longest first, so here every token is one.
    """
    pieces = [PAD, *END_MARKS, *SYMBOLS, *map(str, range(100))]
    tokenizer = Qwen2Tokenizer(
        vocab={piece: index for index, piece in enumerate(pieces)},
        merges=[],
        pad_token=PAD,
        eos_token=END_MARKS[0],
        unk_token=None,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
    special = (PAD, END_MARKS[0])
    tokenizer.add_tokens([AddedToken(piece, normalized=False, special=piece in special) for piece in pieces])
    return tokenizer


def end_mark_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Token ids of the three end marks."""
    return tokenizer.convert_tokens_to_ids(list(END_MARKS))
