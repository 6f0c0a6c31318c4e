"""What the generic tests need to know of each method: parameters at which it acts, and at which it does nothing."""

from tests.methods.cases.case import Case
from tests.methods.cases.core import CASES as CORE
from tests.methods.cases.critic import CASES as CRITIC
from tests.methods.cases.dynamics import CASES as DYNAMICS
from tests.methods.cases.prompts import CASES as PROMPTS

CASES: dict[str, Case] = {**CORE, **CRITIC, **DYNAMICS, **PROMPTS}
