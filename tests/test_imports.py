"""Imports point one way, packages are used from where they are defined, files and functions stay small."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "workbench"
LEVELS = [
    {"config", "ranks", "sections", "tables", "presets"},
    {"tasks", "metrics", "store", "methods", "policy"},
    {"rollout", "plots"},
    {"training", "widgets", "report"},
    {"study"},
    {"__init__", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
NO_MODELS = {"metrics", "plots"}
"""What they do to a stored run they do to an imported one: neither models nor the trainer."""
FILES = sorted(ROOT.rglob("*.py"))


def part_of(path: Path) -> str:
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Modules a file imports, as dotted names; type-checking imports included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the direction"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    mine = part_of(path)
    for name in imported(path):
        package, _, rest = name.partition(".")
        if package != "workbench" or not rest:
            continue
        other = rest.split(".")[0]
        if other not in LEVEL or other == mine:
            continue
        assert LEVEL[other] <= LEVEL[mine], f"{path.relative_to(ROOT)} imports {name}"
        assert LEVEL[other] < LEVEL[mine] or LEVEL[mine] <= 3, f"{path.relative_to(ROOT)} imports {name}"
    if mine in NO_MODELS:
        assert not {
            n for n in imported(path) if n.startswith(("transformers", "workbench.policy", "workbench.training"))
        }


def test_every_part_has_its_level():
    parts = {part_of(path) for path in FILES}
    assert parts == set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_small(path):
    text = path.read_text()
    most_lines, longest = (200, 40) if part_of(path) == "methods" else (400, 61)
    assert len(text.splitlines()) <= most_lines
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < longest, f"{node.name}: {node.end_lineno - node.lineno + 1} lines"


def test_packages_say_what_they_hold():
    for init in ROOT.rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(init.read_text())), init
