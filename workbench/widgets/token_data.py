"""What the token view shows of a run, in columns and of bounded size.

A frame is one page of one kept rollout step: some groups and their first rollouts, in stored order unless another is
asked for, so that nothing is selected by outcome. Numbers of tokens travel as columns; pieces are stored once per frame
and referred to by index. Text is cut to what a reader can use and says so; the whole of it is a request away.
"""

import math
import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd

from workbench.store import curve_table

GROUPS, ROLLOUTS = 4, 8
TOKENS_PER_ROLLOUT = 512
PAGE_TOKENS = 8_000  # what a live page draws without a pause, before "more" is asked for
MIN_TOKENS_PER_ROLLOUT = 48
DECIMALS = 3
TEXT, PROMPT, PIECE = 20_000, 2_000, 200  # characters shown before a text is cut
TOKEN_NUMBERS = (
    "entropy", "logp", "old_logp", "rollout_logp", "ref_logp", "advantage", "ratio", "weight", "change", "gap",
    "difference",
)  # fmt: skip
SCALED = ("entropy", "entropy_before", "entropy_after", "old_logp", "expected_discriminator", "difference")
SORTS = ("stored order", "lowest reward", "highest entropy", "most entropy lost")
_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Request:
    """Which page of a step: `offset` groups are skipped of those that match `search` (plain text, case ignored), hold a
    token of `marks` if `marked`, and ask one of the prompts `pinned`."""

    offset: int = 0
    search: str = ""
    sort: str = SORTS[0]
    pinned: tuple[str, ...] = ()
    marked: bool = False
    limit: int = 0
    """tokens per response; 0 for as many as a page holds"""

    @classmethod
    def read(cls, given: dict) -> "Request":
        """From a front-end's dictionary, of which only what is understood is taken."""
        pinned = tuple(str(key) for key in given.get("pinned") or ())
        sort = given.get("sort") if given.get("sort") in SORTS else SORTS[0]
        numbers = {name: max(0, int(given.get(name) or 0)) for name in ("offset", "limit")}
        return cls(search=str(given.get("search") or ""), sort=sort, pinned=pinned,
                   marked=bool(given.get("marked")), **numbers)  # fmt: skip


@dataclass
class StepTables:
    """One kept step in memory; tokens stand sequence by sequence."""

    step: int
    sequences: pd.DataFrame
    tokens: pd.DataFrame
    starts: np.ndarray = field(init=False)

    def __post_init__(self):
        self.sequences = self.sequences.reset_index(drop=True)
        if "length" not in self.sequences:
            counts = self.tokens["sequence"].value_counts() if len(self.tokens) else pd.Series(dtype=int)
            self.sequences["length"] = counts.reindex(self.sequences.index, fill_value=0)
        if "group" not in self.sequences:
            self.sequences["group"] = pd.factorize(self.keys)[0]
        bounds = np.arange(len(self.sequences) + 1)
        held = self.tokens["sequence"].to_numpy() if len(self.tokens) else np.zeros(0, int)
        if len(held) and (np.diff(held) < 0).any():
            self.tokens = self.tokens.sort_values(["sequence", "position"], kind="stable", ignore_index=True)
            held = self.tokens["sequence"].to_numpy()
        self.starts = np.searchsorted(held, bounds)

    @cached_property
    def keys(self) -> pd.Series:
        return prompt_keys(self.sequences)

    def numbers(self, name: str) -> np.ndarray | None:
        """Token column `name`, float32, derived ones included; None where it was not recorded."""
        return _numbers(self.tokens, name)


def discriminator_gap(tokens: pd.DataFrame) -> np.ndarray | None:
    """S − E[S] per token, nats (arXiv 2602.03392); None where E[S] was not recorded."""
    if not {"old_logp", "entropy", "expected_discriminator"} <= set(tokens):
        return None
    logp, entropy = (tokens[name].to_numpy(dtype=np.float32) for name in ("old_logp", "entropy"))
    return np.exp(logp) * (entropy + logp) - tokens["expected_discriminator"].to_numpy(dtype=np.float32)


def load(run, step: int) -> StepTables:
    """A kept step of `run`; without tokens where only responses were recorded."""
    try:
        stored = run.rollouts(step)
    except FileNotFoundError:
        return StepTables(int(step), run.sequences(step), pd.DataFrame({"sequence": [], "position": []}))
    return StepTables(int(step), stored.sequences, stored.tokens)


def header(run) -> dict:
    """What every frame shares: run id, entropy curve, kept steps, colour scales. Raises ValueError without rollouts."""
    if not run.rollout_steps:
        raise ValueError(f"run {run.id} kept no rollouts; set the config's rollout keeping interval and train again.")
    return {"run": run.id, "scales": scales(run), "sorts": list(SORTS)} | course(run)


def course(run) -> dict:
    """What of the header grows while a run trains: entropy curve and kept steps."""
    curve = curve_table(run, ["entropy/mean"]).dropna()
    return {
        "steps": [int(step) for step in run.rollout_steps],
        "curve": [[int(step), _round(value)] for step, value in curve.itertuples(index=False)],
    }


def scales(run) -> dict[str, float]:
    """Ends of the colour scales: the 99th percentile of the size over the first and last kept step, rounded up to two
    digits, so that one colour means one value at every step. Entropy in steps of 0.25 nats."""
    steps = run.rollout_steps
    ends = [_scaled_columns(run, step) for step in sorted({steps[0], steps[-1]})]
    out = {"logp": 5.0, "advantage": 2.0, "entropy": _ceiling(ends, "entropy", 0.25, 0.25)}
    return out | {name: _ceiling(ends, name, 0.01, 0.05) for name in ("change", "gap", "difference")} | {"ratio": 0.4}


def _scaled_columns(run, step: int) -> pd.DataFrame:
    try:
        return run.token_columns(step, SCALED)
    except FileNotFoundError:
        return pd.DataFrame()


def entropy_ceiling(run) -> float:
    """Upper end of the shared entropy scale in nats."""
    return scales(run)["entropy"]


def frame(
    run,
    step: int,
    groups: int = GROUPS,
    rollouts: int = ROLLOUTS,
    tokens: int = TOKENS_PER_ROLLOUT,
    request: Request | None = None,
    marks: np.ndarray | None = None,
) -> dict:
    """One page of a kept step: at most `groups` groups x `rollouts` rollouts, at most `tokens` tokens of each.

    `run` may be the loaded step itself. `marks`: bool [N], tokens to set apart. Columns are numpy arrays.
    """
    tables = run if isinstance(run, StepTables) else load(run, step)
    request = request or Request()
    sequences = tables.sequences
    matching = _matching(tables, request, marks)
    page = matching[request.offset : request.offset + groups]
    chosen = [_members(tables, group, rollouts, marks if request.marked else None) for group in page]
    rows = [int(row) for members in chosen for row in members]
    limit = request.limit or tokens
    counts = np.minimum(np.diff(tables.starts)[rows], limit).astype(int)
    places = np.concatenate([tables.starts[r] + np.arange(n) for r, n in zip(rows, counts, strict=True)] or [[]])
    pieces, columns = _columns(tables, places.astype(int), marks)
    first = dict(zip(rows, np.cumsum(counts) - counts, strict=True))
    held = dict(zip(rows, counts, strict=True))
    return {
        "step": tables.step,
        "total": len(sequences),
        "total_groups": int(sequences["group"].nunique()),
        "matching_groups": len(matching),
        "offset": request.offset,
        "page": groups,
        "limit": int(limit),
        "pieces": pieces,
        "columns": columns,
        "groups": [
            _group(tables, group, [_rollout(tables, int(row), first[row], held[row]) for row in members])
            for group, members in zip(page, chosen, strict=True)
        ],
    }


@lru_cache(maxsize=64)
def steps_by_prompt(run) -> dict[str, list[int]]:
    """Kept steps in which each prompt stands, by its key (see `StepTables.keys`)."""
    table = run.prompts()
    pairs = pd.DataFrame({"key": prompt_keys(table), "step": table["step"]}).drop_duplicates()
    return {key: sorted(steps.tolist()) for key, steps in pairs.groupby("key")["step"]}


def prompt_keys(table: pd.DataFrame) -> pd.Series:
    """What makes two prompts the same across steps: their number in the training set, else their text."""
    for name in ("prompt_id", "prompt_text", "prompt"):
        if name in table:
            return table[name].astype(str)
    return pd.Series("", index=table.index)


def clean(text, limit: int | None = None) -> str:
    """Text that any front-end takes: lone surrogates replaced, cut to `limit` characters with an ellipsis."""
    text = _SURROGATES.sub("\ufffd", str(text))
    return text if limit is None or len(text) <= limit else text[:limit] + "…"


def _matching(tables: StepTables, request: Request, marks) -> list:
    """Groups that answer the request, in its order."""
    sequences = tables.sequences
    kept = np.ones(len(sequences), dtype=bool)
    if request.pinned:
        kept &= tables.keys.isin(request.pinned).to_numpy()
    if request.search:
        found = np.zeros(len(sequences), dtype=bool)
        for name in ("text", "prompt_text"):
            if name in sequences:
                wanted = request.search.lower()
                found |= np.array([wanted in str(text).lower() for text in sequences[name]])
        kept &= found
    if request.marked and marks is not None:
        kept &= np.add.reduceat(np.append(marks, 0), tables.starts[:-1]) * (np.diff(tables.starts) > 0) > 0
    groups = sequences["group"][kept]
    if request.sort == SORTS[0]:
        return list(groups.unique())
    return list(_sort_key(tables, request.sort)[kept].groupby(groups).mean().sort_values(kind="stable").index)


def _sort_key(tables: StepTables, sort: str) -> pd.Series:
    """What groups are sorted by, ascending, per sequence."""
    if sort == "lowest reward":
        return tables.sequences["reward"].astype(float)
    values = tables.numbers("entropy" if sort == "highest entropy" else "change")
    if values is None:
        return pd.Series(0.0, index=tables.sequences.index)
    sums = np.add.reduceat(np.append(np.nan_to_num(values), 0.0), tables.starts[:-1])
    mean = np.where(np.diff(tables.starts) > 0, sums, 0) / np.maximum(1, np.diff(tables.starts))
    return pd.Series(-mean if sort == "highest entropy" else mean, index=tables.sequences.index)


def _members(tables: StepTables, group, rollouts: int, marks) -> np.ndarray:
    """Rows of the group's rollouts to show; with `marks` those that hold marked tokens, most of them first."""
    rows = np.flatnonzero((tables.sequences["group"] == group).to_numpy())
    if marks is not None:
        held = np.array([marks[tables.starts[r] : tables.starts[r + 1]].sum() for r in rows])
        rows = rows[np.argsort(-held, kind="stable")][: max(1, int((held > 0).sum()))]
    return rows[:rollouts]


def _columns(tables: StepTables, places: np.ndarray, marks) -> tuple[list[str], dict[str, np.ndarray]]:
    """Distinct pieces of the tokens at `places` and of the alternatives stored there, and columns: `piece` and `top1`,
    … (uint32, places among the pieces), numbers and `top1_logp`, … (float32), `mark`."""
    texts = _texts(tables.tokens.iloc[places])
    codes, pieces = pd.factorize(np.concatenate(list(texts.values())))
    columns = {name: part.astype(np.uint32) for name, part in zip(texts, np.split(codes, len(texts)), strict=True)}
    for name in (*TOKEN_NUMBERS, *(f"{name}_logp" for name in texts if name != "piece")):
        values = tables.numbers(name) if len(places) else None
        if values is not None:
            columns[name] = values[places].astype(np.float32)
    if marks is not None:
        columns["mark"] = np.asarray(marks)[places].astype(np.uint32)
    return [clean(piece, PIECE) for piece in pieces], columns


def _texts(tokens: pd.DataFrame) -> dict[str, np.ndarray]:
    """Text of each token, by its number where no text was recorded, and of its alternatives."""
    if "piece" in tokens or not len(tokens):
        own = tokens.get("piece", pd.Series(dtype=object))
    else:
        own = tokens["token"].map(lambda number: f"[{number}]")
    # Two runs side by side may differ in how many alternatives they stored.
    texts = {"piece": own} | {name: tokens[f"{name}_piece"].fillna("") for name in alternatives(tokens)}
    return {name: text.to_numpy(dtype=object) for name, text in texts.items()}


def alternatives(tokens: pd.DataFrame) -> list[str]:
    """`top1`, `top2`, … as far as they are stored with a text."""
    ranks = range(1, 1 + sum(name.startswith("top") and name.endswith("_piece") for name in tokens))
    return [f"top{rank}" for rank in ranks if f"top{rank}_piece" in tokens and f"top{rank}_logp" in tokens]


def _group(tables: StepTables, group, rows: list[dict]) -> dict:
    members = tables.sequences[(tables.sequences["group"] == group).to_numpy()]
    first = members.iloc[0]
    rewards = members["reward"] if "reward" in members else pd.Series(dtype=float)
    return {
        "prompt": clean(getattr(first, "prompt_text", ""), PROMPT),
        "key": tables.keys[members.index[0]],
        "size": len(members),
        "flat": bool(len(rewards) > 1 and rewards.nunique() <= 1),
        "mean": _round(rewards.mean()),
        "rollouts": rows,
    }


def _rollout(tables: StepTables, number: int, first: int, count: int) -> dict:
    """One response: its sequence-level numbers and where its tokens stand in the frame's columns."""
    row = tables.sequences.iloc[number]
    text = str(getattr(row, "text", ""))
    return {
        "row": number,
        "name": clean(row.get("name", ""), PIECE),
        "reward": _round(row.get("reward")),
        "correct": bool(row["correct"]) if "correct" in row and row["correct"] is not None else None,
        "finished": bool(row.get("finished", True)),
        "advantage": _round(row.get("advantage")),
        "length": int(row["length"]),
        "text": clean(text, TEXT),
        "characters": len(text),
        "first": int(first),
        "count": int(count),
    }


def _ceiling(tables: list[pd.DataFrame], name: str, step: float, least: float) -> float:
    values = [v for tokens in tables if (v := _numbers(tokens, name)) is not None]
    finite = np.abs(np.concatenate(values)) if values else np.zeros(0)
    finite = finite[np.isfinite(finite)]
    top = float(np.quantile(finite, 0.99)) if len(finite) else math.nan
    return max(least, round(math.ceil(top / step) * step, 6)) if math.isfinite(top) else 1.0


def _numbers(tokens: pd.DataFrame, name: str) -> np.ndarray | None:
    """See `StepTables.numbers`."""
    if name == "change":
        return _difference(tokens, "entropy_after", "entropy_before" if "entropy_before" in tokens else "entropy")
    if name == "gap":
        return discriminator_gap(tokens)
    return tokens[name].to_numpy(dtype=np.float32) if name in tokens else None


def _difference(tokens: pd.DataFrame, after: str, before: str) -> np.ndarray | None:
    if after not in tokens or before not in tokens:
        return None
    return (tokens[after].to_numpy(dtype=np.float64) - tokens[before].to_numpy(dtype=np.float64)).astype(np.float32)


def _round(value):
    """A number with DECIMALS digits, or None where nothing was recorded: "not recorded" is not 0."""
    if value is None or pd.isna(value) or not math.isfinite(value):
        return None
    return round(float(value), DECIMALS)
