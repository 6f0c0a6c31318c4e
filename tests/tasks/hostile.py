"""Hostile answers for every verifier: generated from a seed, none of them right, all of them at someone's throat."""

from random import Random

CANARY = "workbench-evaluated-model-text"
"""A file that appears in the working folder when an answer was evaluated."""
EVALUATED = (
    f"__import__('pathlib').Path('{CANARY}').touch()",
    f"[__import__('pathlib').Path('{CANARY}').touch()]",
    f"open('{CANARY}','w')",
    f"(lambda: open('{CANARY}', 'w'))()",
    f"Symbol('x').__class__.__init__.__globals__['__builtins__']['open']('{CANARY}','w')",
    f"{{0}}.format(open('{CANARY}','w'))",
)
"""What leaves the canary behind when Python or sympy evaluates it."""
EXPENSIVE = ("9^{9^{9}}", "9**9**9", "\\binom{10^9}{10^8}", "\\prod_{i=1}^{10^8} i", "10^{10^{10}}", "factorial(10**9)")
"""What takes for ever or all memory when it is computed."""
PIECES = (
    "\0",
    "\ud800",
    "\udcff\udcfe",
    "\ufffd",
    "\u202e",
    "²",
    "٣٤",
    "９",
    "∞",
    "NaN",
    "-0",
    "1e999999",
    "1_000",
    "0x7",
    "1/0",
    "\\frac{1}{0}",
    "\\frac",
    "\\sqrt{",
    "}}}",
    "{{{",
    "\\left(",
    "\\begin{pmatrix}1&2\\\\",
    "<answer>",
    "</answer>",
    "\\boxed{",
    "\\boxed",
    "```python",
    "```",
    "####",
    "Answer:",
    "%s%n",
    "{0.__class__}",
    "';--",
    "\x1b[2J",
    "\r\n",
    "\t",
    "True",
    "None",
    "null",
    "[[",
    "]]",
    '{"a":',
    "x**x",
    "lambda: 0",
    "=",
    "+",
    ";",
    ",",
    "#",
    "!",
    "?",
)
WRAPPERS = ("{}", "{}#", "{}!", "\\boxed{{{}}}", "<answer>{}</answer>", "Answer: {}", "#### {}", "```python\n{}\n```")


def hostile_answers(count: int, seed: int, expensive_share: float = 0.002) -> list[str]:
    """`count` answers, of which a share asks for a computation without end and at most five are megabytes long."""
    rng = Random(f"hostile/{seed}")
    huge = ["9" * 10_000_000, "(" * 1_000_000, "\\boxed{" + "[" * 500_000, "<answer>" + "{" * 2_000_000, "=1" * 700_000]
    answers = huge[: max(1, count // 500)]
    while len(answers) < count:
        kind = rng.random()
        if kind < expensive_share:
            inside = rng.choice(EXPENSIVE)
        elif kind < 0.1:
            inside = rng.choice(EVALUATED)
        elif kind < 0.3:
            inside = _nested(rng)
        else:
            inside = "".join(rng.choice((*PIECES, str(rng.randint(0, 70_000)))) for _ in range(rng.randint(0, 12)))
        answers.append(rng.choice(WRAPPERS).format(inside))
    return answers


def _nested(rng: Random) -> str:
    opening, closing = rng.choice((("(", ")"), ("[", "]"), ("{", "}"), ("\\frac{1}{", "}"), ("-", ""), ("x^{", "}")))
    depth = rng.choice((3, 10, 13, 100, 1000, 20_000))
    return opening * depth + "1" + closing * rng.choice((depth, depth - 1, 0))
