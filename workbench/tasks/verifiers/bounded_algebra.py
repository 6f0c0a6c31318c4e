"""Text to sympy expression without evaluating it as Python, unlike `sympy.parse_expr`, which does.

Python's grammar is read into a syntax tree; only arithmetic, names and known functions of it become an expression.
"""

import ast
import operator

import sympy

MAX_CHARACTERS = 2000
MAX_POWER_BITS = 20_000
"""Largest integer a power may make, in bits: far above any answer, far below what fills the memory."""

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
TRIGONOMETRY = ("sin", "cos", "tan", "cot", "sec", "csc", "asin", "acos", "atan")
HYPERBOLIC = ("sinh", "cosh", "tanh", "asinh", "acosh", "atanh")
FUNCTIONS = {name: getattr(sympy, name) for name in ("sqrt", "exp", "log", "ln", "Abs", *TRIGONOMETRY, *HYPERBOLIC)}
CONSTANTS = {"pi": sympy.pi, "E": sympy.E, "I": sympy.I}


def literal(text: str) -> object:
    """The list, tuple, number or string literal written in `text`. Raises `ValueError` for anything else."""
    try:
        if len(text) > MAX_CHARACTERS:
            raise ValueError("too long")
        return ast.literal_eval(text)
    except (SyntaxError, RecursionError, MemoryError, TypeError) as error:
        raise ValueError("not a literal") from error


def expression(text: str, local_dict: dict | None = None) -> sympy.Expr:
    """The expression written in `text`, names taken from `local_dict`, then from `CONSTANTS`, else new symbols.

    Raises `ValueError` for text that is longer than `MAX_CHARACTERS`, is not arithmetic, or makes a huge power.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError("too long")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        return _built(tree.body, {**CONSTANTS, **(local_dict or {})})
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("not an expression") from error


def _built(node: ast.AST, names: dict) -> sympy.Expr:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return sympy.Integer(node.value) if type(node.value) is int else sympy.Float(node.value)
    if isinstance(node, ast.Name):
        return names.get(node.id, sympy.Symbol(node.id))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _built(node.operand, names)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](_built(node.left, names), _built(node.right, names))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return _power(_built(node.left, names), _built(node.right, names))
    if isinstance(node, ast.Call) and _is_known(node):
        return FUNCTIONS[node.func.id](*(_built(argument, names) for argument in node.args))
    raise ValueError(f"{type(node).__name__} is not arithmetic")


def _is_known(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id in FUNCTIONS and len(call.args) == 1 and not call.keywords


def _power(base: sympy.Expr, exponent: sympy.Expr) -> sympy.Expr:
    if base.is_number and exponent.is_number:
        bits = max(int(base.p).bit_length(), int(base.q).bit_length(), 2) if base.is_Rational else 64
        if not exponent.is_real or abs(exponent) * bits > MAX_POWER_BITS:
            raise ValueError("a huge power")
    elif exponent.is_number and abs(exponent) > 1000:
        raise ValueError("a huge power")
    return base**exponent
