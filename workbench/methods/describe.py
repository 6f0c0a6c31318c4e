"""What `python -m workbench methods` prints: generated from the classes, so that it cannot lag behind them."""

from __future__ import annotations

import inspect
from typing import Any, get_args

from workbench.config import BUNDLES, METHODS, ConfigError, nearest
from workbench.methods.base import Method
from workbench.methods.terms import EXCLUSIVE

INFERRED = "(I)"


def method_table() -> list[tuple[str, str, str]]:
    """(name, paper, one line) of every method and bundle, by name."""
    kinds = sorted((METHODS | BUNDLES).items())
    return [(name, kind.paper, inspect.getdoc(kind).splitlines()[0]) for name, kind in kinds]


def describe_method(name: str) -> str:
    """A method's paper, formula, parameters and hooks as text. Raises `ConfigError` for an unknown name."""
    kinds = METHODS | BUNDLES
    if name not in kinds:
        raise ConfigError(f"unknown method '{name}'{nearest(name, kinds)}")
    kind = kinds[name]
    lines = [f"{name} · {kind.paper}", "", inspect.getdoc(kind), "", "Parameters:"]
    lines += [_parameter(key, field) for key, field in kind.model_fields.items()] or ["  none"]
    if name in BUNDLES:
        lines += ["", "Stands for:", *(f"  {entry}" for entry in kind().expand())]
    else:
        hooks = [key for key, value in vars(Method).items() if inspect.isfunction(value) and _acts(kind, key)]
        lines += ["", f"Acts through: {', '.join(hooks)}"]
        exclusive = [hook for hook in hooks if hook in EXCLUSIVE]
        if exclusive:
            lines += [f"Only one method of a run may give: {', '.join(exclusive)}"]
    if INFERRED in "\n".join(lines):
        lines += ["", "Marks: (S) stated by the source, (K) common knowledge, (I) inferred here, hence a parameter."]
    return "\n".join(lines)


def _acts(kind: type, hook: str) -> bool:
    silent = {"check", "cautions", "needs", "exclusive", "measures", "begin", "state_dict", "load_state_dict"}
    return not hook.startswith(("_", "model_")) and hook not in silent and getattr(kind, hook) is not vars(Method)[hook]


def _parameter(name: str, field: Any) -> str:
    bounds = [str(bound) for bound in map(_bound, field.metadata) if bound]
    kind = " | ".join(_type_names(field.annotation))
    default = "required" if field.is_required() else repr(field.default)
    allowed = f", {' and '.join(bounds)}" if bounds else ""
    return f"  {name} = {default}  [{kind}{allowed}]  {field.description}"


def _type_names(annotation: Any) -> list[str]:
    """'float' for float, the values of a Literal, and both for a union of them."""
    inner = get_args(annotation)
    if not inner:
        return [getattr(annotation, "__name__", str(annotation))]
    return [name for part in inner for name in (_type_names(part) if not isinstance(part, str) else [part])]


def _bound(constraint: Any) -> str:
    for key, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
        if hasattr(constraint, key):
            return f"{sign} {getattr(constraint, key)}"
    return ""
