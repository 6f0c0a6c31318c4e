"""Cases of the methods with a critic; both replace what grpo gives, so neither has neutral parameters."""

from tests.methods.cases.case import Case

CASES = {
    "etpo": Case(acting={"beta": 0.3}, without=()),
    "poad": Case(acting={"variant": "naive_token", "gamma": 0.8}, without=()),
}
