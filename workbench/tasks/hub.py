"""Records of a published data set: from a local file, or from the Hugging Face hub through `datasets`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from workbench.config import ConfigError

SUFFIXES = (".jsonl", ".json", ".parquet")


@dataclass(frozen=True)
class Source:
    """Where a data set lives on the hub: its id, its split and its configuration ('' if it has one only); or, where it
    cannot be loaded by its id, the pattern of its files of JSON lines."""

    hub: str
    split: str = "train"
    config: str = ""
    files: str = ""

    def load(self):
        """What `datasets` makes of it."""
        import datasets

        if self.files:
            return datasets.load_dataset("json", data_files=f"hf://datasets/{self.hub}/{self.files}", split="train")
        return datasets.load_dataset(self.hub, self.config or None, split=self.split)


@lru_cache(maxsize=16)
def load_records(name: str, source: Source, path: str = "") -> list[dict]:
    """The records of set `name`: of the local file `path` if one is given, else of `source` on the hub.

    A local file has the schema of the hub's data set: JSON lines, a JSON list, or Parquet; a `*` in its name stands for
    several files, read in the order of their names. Raises `ConfigError` that says what is wrong and what to do: a file
    that is missing, malformed or empty; a hub that cannot be reached.
    """
    records = _from_files(Path(path).expanduser()) if path else _from_hub(name, source)
    if not records or not all(isinstance(record, dict) for record in records):
        raise ConfigError(f"data file '{path or source.hub}' must hold at least one record, each a mapping of fields")
    return records


def _from_files(path: Path) -> list[dict]:
    if "*" not in path.name:
        return _from_file(path)
    found = sorted(path.parent.glob(path.name))
    if not found:
        raise ConfigError(f"no data file is named '{path}'")
    return [record for each in found for record in _from_file(each)]


def _from_file(path: Path) -> list[dict]:
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"data file '{path}' must end in one of {', '.join(SUFFIXES)}")
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            return pyarrow.parquet.read_table(path).to_pylist()
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            content = json.loads(text)
            return content if isinstance(content, list) else []
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"data file '{path}' cannot be read: {str(error).splitlines()[0]}") from error


def _from_hub(name: str, source: Source) -> list[dict]:
    try:
        loaded = source.load()
    except Exception as error:  # the library's own, of requests, of the file system: all mean that there is no data
        part = source.files or f"split '{source.split}'"
        raise ConfigError(
            f"'{name}' needs data set '{source.hub}' ({part}), which could not be loaded: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}. On a machine with network, run "
            f"`hf download --repo-type dataset {source.hub} --local-dir DIRECTORY`, bring its file here (JSON lines, "
            f"JSON or Parquet) and name it: '{name.partition('?')[0]}?path=FILE'"
        ) from error
    return [dict(record) for record in loaded]
