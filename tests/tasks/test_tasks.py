"""What holds for every task: splits, determinism, honest traces, hostile responses, the registry."""

from random import Random
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.tasks import TASKS, Solver, example_traces, get_task

FLAWLESS = Solver(wrong_precedence=0, slip=0)
HOSTILE = [
    "",
    "#",
    "!",
    "?",
    "=",
    "=#",
    ";!",
    "\0",
    "\0#",
    "9" * 10_000_000,
    "9" * 10_000_000 + "#",
    "(" * 100_000 + "#",
    "1+" * 400 + "1#",
    "=" * 999 + "#",
    ";" * 999 + "!",
    "," * 999 + "!",
    "٣#",
    "²#",
    "３#",
    "__import__('os')#",
    "1e1#",
    "+7#",
    " 7#",
    "7 #",
    "7#\n",
    "7##",
    "7#7#",
    "1_1#",
    "\ud800#",
    "0x7#",
    "7.0#",
]
every_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


@every_task
def test_train_and_evaluation_prompts_are_disjoint_and_distinct(task):
    evaluation = task.evaluation_prompts(150)
    train = task.train_prompts(400, seed=3)
    assert {task.split(prompt) for prompt in train} == {"train"}
    assert not {task.split_key(p) for p in train} & {task.split_key(p) for p in evaluation}
    assert len({p.text for p in train}) == 400
    assert len({p.text for p in evaluation}) == 150


@every_task
def test_prompts_depend_on_the_seed_alone(task):
    assert task.train_prompts(20, seed=1) == task.train_prompts(30, seed=1)[:20]
    assert task.train_prompts(20, seed=1) != task.train_prompts(20, seed=2)
    assert task.evaluation_prompts(20) == task.evaluation_prompts(30)[:20]


def test_prompts_never_change_with_process_or_version():
    """Written down once: a changed list would silently move prompts between pre-training, training and evaluation."""
    texts = {
        name: [prompt.text for prompt in task.evaluation_prompts(2) + task.train_prompts(2, seed=7)]
        for name, task in TASKS.items()
    }
    assert texts == {
        "reduce": ["5*4*3+6*5=", "8*4+8-2-3=", "8*9*1+3+3=", "8*1*8-2-3="],
        "reduce-short": ["5+8-1*9=", "1*5*8+4=", "5+2*4-5=", "6*4-4+9="],
        "reduce-long": ["8+3+8+6-5+3=", "1+8*7+4+1-3=", "9*1+8*4-9*1=", "5+6*1*6-8*5="],
        "countdown": ["16,3,20>7:", "8,17,4>29:", "9,3,8>19:", "11,18,10>39:"],
        "countdown-short": ["2,7>9:", "16,3>48:", "12,9>21:", "8,1>7:"],
        "countdown-long": ["6,7,13,18>7:", "19,10,18,4>63:", "2,7,7,10>70:", "10,17,10,19>36:"],
    }


def test_a_used_up_space_repeats_its_prompts_evenly():
    task = get_task("countdown-short")
    prompts = task.train_prompts(3000, seed=0)
    distinct = {prompt.text for prompt in prompts}
    assert 500 < len(distinct) < 3000
    assert len({prompt.text for prompt in prompts[:500]}) == 500


@every_task
def test_a_flawless_solver_is_rewarded_whenever_it_claims_success(task):
    rng = Random(0)
    verdicts = []
    for prompt in task.train_prompts(200, seed=5):
        text = task.trace(prompt, FLAWLESS, rng)
        verdict = task.verify(prompt, text)
        assert verdict.correct == (verdict.reward == 1.0) == text.endswith(("#", "!"))
        assert verdict.measures["valid"]
        assert bool(verdict.measures["derivation"]) == verdict.correct
        verdicts.append(verdict.correct)
    assert any(verdicts)


@every_task
def test_traces_of_the_unskilled_solver_fit_the_token_budget(task):
    rng = Random(1)
    longest = max(len(task.trace(prompt, Solver(), rng)) for prompt in task.train_prompts(300, seed=1))
    assert longest <= 2 * task.max_response_tokens  # at most two characters per token


def test_habits_of_the_solver_are_as_frequent_as_stated():
    task, rng = get_task("reduce"), Random(2)
    prompts = task.train_prompts(2000, seed=2)

    def correct_share(**habits: float) -> float:
        solver = FLAWLESS.model_copy(update=habits)
        return sum(task.verify(p, task.trace(p, solver, rng)).measures["valid"] for p in prompts) / len(prompts)

    assert correct_share() > 0.97  # the rest: an order of reductions that has left 0-99
    assert correct_share(slip=0.1) == pytest.approx(0.9**4, abs=0.04)
    assert 0.55 < correct_share(wrong_precedence=0.15) < 0.8


@every_task
@pytest.mark.parametrize("response", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_responses_earn_nothing_and_cost_no_time(task, response):
    prompt = next(p for p in task.train_prompts(500, seed=0) if p.answer not in ("7", "9"))
    started = perf_counter()
    verdict = task.verify(prompt, response)
    assert perf_counter() - started < 0.1
    assert (verdict.reward, verdict.correct, verdict.measures["valid"]) == (0.0, False, False)


@every_task
@given(response=st.text(max_size=60) | st.text("0123456789+-*=,;#!?٣²", max_size=60))
def test_any_text_gets_a_verdict(task, response):
    verdict = task.verify(task.evaluation_prompts(1)[0], response)
    assert verdict.reward in (0.0, 1.0)
    assert verdict.correct == (verdict.reward == 1.0)


def test_example_traces_show_every_task_and_judge_it():
    traces = example_traces(TASKS.values(), Solver(), count=20)
    assert traces["task"].value_counts().to_dict() == dict.fromkeys(TASKS, 20)
    assert traces.equals(example_traces(TASKS.values(), Solver(), count=20))
    assert 0 < traces["correct"].mean() < 1


def test_out_of_domain_sets_are_other_known_tasks():
    for name, task in TASKS.items():
        assert name not in task.out_of_domain
        assert set(task.out_of_domain) <= set(TASKS)
    assert get_task("reduce").out_of_domain == ("reduce-short", "reduce-long", "countdown")
    assert get_task("countdown").out_of_domain == ("countdown-short", "countdown-long", "reduce")


def test_an_unknown_task_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean 'countdown'"):
        get_task("cuontdown")
