"""Offline sample injection: the file, which responses give way, and the two losses."""

import json

import pytest
import torch

import workbench as wb
from tests.methods.cases.prompts import SOLUTIONS
from tests.methods.hand_made import hand_made
from workbench.config import ConfigError, ObjectiveConfig, make_config
from workbench.methods import Composition, Progress
from workbench.methods.grpo import Grpo
from workbench.methods.offline_injection import OfflineInjection, read_solutions, solutions_of
from workbench.tasks import Prompt, get_task
from workbench.tasks.solutions import write_solutions
from workbench.training.objective import prepare, token_loss
from workbench.training.run import train_run
from workbench.training.trainer import Trainer


def file_of(tmp_path, *lines):
    path = tmp_path / "solutions.jsonl"
    path.write_text("\n".join(lines))
    return str(path)


def entry(prompt, solution):
    return json.dumps({"prompt": prompt, "solution": solution})


@pytest.mark.parametrize("name", ["reduce", "reduce-long", "countdown", "countdown-long"])
def test_written_solutions_are_accepted_by_the_tasks_verifier(name, tmp_path):
    task, path = get_task(name), tmp_path / "solutions.jsonl"
    prompts = task.train_prompts(20, 3)
    write_solutions(path, task, prompts, count=2)
    solutions = read_solutions(path)
    assert list(solutions) == [prompt.text for prompt in prompts]
    for prompt in prompts:
        assert len(solutions[prompt.text]) == 2
        assert all(task.verify(prompt, text).correct for text in solutions[prompt.text])
    first = path.read_bytes()
    write_solutions(path, task, prompts, count=2)
    assert path.read_bytes() == first


def test_the_file_of_the_generic_cases_is_what_is_written_today(tmp_path):
    task, path = get_task("reduce"), tmp_path / "solutions.jsonl"
    write_solutions(path, task, task.train_prompts(64, 0), count=2)
    assert path.read_bytes() == SOLUTIONS.read_bytes()


def test_a_prompt_without_a_solution_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.tasks.solutions.MAX_TRIES", 5)
    with pytest.raises(ValueError, match="no solution of prompt '1\\+1=' was found in 5 tries"):
        write_solutions(tmp_path / "s", get_task("reduce"), [Prompt("1+1=", "reduce", "3")])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["", "  "], "has no line"),
        ([entry("a", "b"), "{"], "line 2: not a JSON object"),
        (["[" * 100_000], "line 1: not a JSON object"),
        (['["a", "b"]'], "line 1: must be an object with exactly the keys"),
        (['{"prompt": "a"}'], "exactly the keys"),
        (['{"prompt": "a", "solution": "b", "more": 1}'], "exactly the keys"),
        (['{"prompt": 3, "solution": "b"}'], "'prompt' must be a text"),
        (['{"prompt": "a", "solution": "\\ud800"}'], "'solution' has half a surrogate pair"),
        ([entry("a", " ")], "'solution' must be a text that is not empty"),
    ],
)
def test_malformed_files_are_refused_with_the_line(lines, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        read_solutions(file_of(tmp_path, *lines))


def test_unreadable_files_are_refused(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "absent", tmp_path / "binary", tmp_path):
        with pytest.raises(ValueError, match="cannot be read"):
            solutions_of(str(path))


def test_a_file_written_anew_is_read_anew(tmp_path):
    path = file_of(tmp_path, entry("a", "1"))
    assert solutions_of(path) == {"a": ["1"]}
    file_of(tmp_path, entry("a", "1"), entry("a", "2"))
    assert solutions_of(path) == {"a": ["1", "2"]}


CORRECT = [[0] * 8, [0, 0, 1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0], [0] * 8]
TEXTS = [name for name in "abcd" for _ in range(8)]


def injected(path, **parameters):
    r = hand_made(CORRECT, sequences={"prompt_text": TEXTS})
    return OfflineInjection(path=path, **parameters).inject(r)


def test_the_first_failed_responses_of_hard_prompts_give_way(tmp_path):
    path = file_of(
        tmp_path, *(entry("a", f"a{i}") for i in range(2)), *(entry("b", f"b{i}") for i in range(9)), entry("c", "c0")
    )
    b = {8: "b0", 9: "b1", 11: "b2", 12: "b3", 13: "b4", 14: "b5", 15: "b6"}
    assert injected(path) == {0: "a0", 1: "a1", **b}, "b is solved 1 time in 8, c twice, d has no solution"
    assert injected(path, cap=1) == {0: "a0", 8: "b0"}
    assert injected(path, threshold=0.0) == {0: "a0", 1: "a1"}
    assert injected(path, threshold=0.25, cap=1) == {0: "a0", 8: "b0", 18: "c0"}
    assert injected("") == {}


LENGTHS, OFFLINE = [1, 2, 3, 1], [True, False, True, False]
LOGP = [-0.1, -2.0, -0.7, -1.5, -3.0, -0.01, -0.4]
OLD = [-0.3, -0.1, -0.7, -1.5, -1.0, -0.5, -4.0]
ADVANTAGE = [1.0, -0.5, -0.5, 2.0, 2.0, 2.0, -1.0]


def luffy_tokens(tmp_path, with_column=True):
    method = OfflineInjection(path=file_of(tmp_path, entry("a", "b")), loss="luffy")
    columns = {"offline": OFFLINE} if with_column else {}
    tokens = {"old_logp": OLD, "advantage": ADVANTAGE}
    batch = hand_made([[1, 0], [1, 0]], LENGTHS, sequences=columns, tokens=tokens)
    methods = Composition([Grpo(), method])
    return prepare(batch, methods, ObjectiveConfig(), 9).tokens, methods


def test_luffys_loss_and_gradient_are_the_closed_forms(tmp_path):
    """On-policy −A·r, d = −A·r, never clipped; offline −A·p/(p + 0.1), d = −A·0.1·p/(p + 0.1)²."""
    tokens, methods = luffy_tokens(tmp_path)
    logp = torch.tensor(LOGP, dtype=torch.float64, requires_grad=True)
    loss = token_loss(tokens, methods.ratio(tokens, logp), logp, tokens.entropy, methods)
    loss.sum().backward()
    offline = [o for o, n in zip(OFFLINE, LENGTHS, strict=True) for _ in range(n)]
    p, r = logp.detach().exp(), (logp.detach() - torch.tensor(OLD)).exp()
    for i, is_offline in enumerate(offline):
        value = p[i] / (p[i] + 0.1) if is_offline else r[i]
        slope = 0.1 * p[i] / (p[i] + 0.1) ** 2 if is_offline else r[i]
        assert loss[i].item() == pytest.approx(-ADVANTAGE[i] * value.item(), rel=1e-6)
        assert logp.grad[i].item() == pytest.approx(-ADVANTAGE[i] * slope.item(), rel=1e-6)
    assert torch.isinf(tokens.clip_high).all() and (tokens.clip_low == 1).all(), "metrics must not tell of clipping"


def test_without_injected_responses_luffy_is_the_unclipped_policy_gradient(tmp_path):
    tokens, methods = luffy_tokens(tmp_path, with_column=False)
    logp = torch.tensor(LOGP, dtype=torch.float64)
    ratio = methods.ratio(tokens, logp)
    assert torch.equal(token_loss(tokens, ratio, logp, tokens.entropy, methods), -tokens.advantage * ratio)


@pytest.mark.parametrize("loss", ["plain", "luffy"])
def test_a_run_trains_on_the_solutions_at_ratio_one(loss):
    """Injected responses are verified correct and scored by the policy before the update."""
    entry = {"name": "offline_injection", "path": str(SOLUTIONS), "loss": loss}
    overrides = {"methods": ["grpo", entry], "training.old_logp": "trainer", "training.updates_per_rollout": 1}
    result = Trainer(wb.preset("smoke", overrides)).step(1)
    r = result.rollouts
    offline = r.sequences.offline
    assert offline.any() and r.sequences.correct[offline].all()
    assert result.metrics["method/offline_injection/offline_fraction"] == pytest.approx(offline.double().mean().item())
    ratio = r.tokens.ratio[r.broadcast_to_tokens(offline)]
    torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=1e-4, rtol=0)


def test_injected_responses_are_stored_without_the_alternatives_a_sampler_had(tmp_path):
    overrides = {
        "methods": ["grpo", {"name": "offline_injection", "path": str(SOLUTIONS)}],
        "training.old_logp": "trainer",
        "training.steps": 1,
        "optimiser.warmup_updates": 0,
        "evaluation.sets": [],
    }
    stored = wb.open_run(train_run(wb.preset("smoke", overrides), root=tmp_path)).rollouts(1)
    injected = stored.tokens["sequence"].isin(stored.sequences.query("offline").index)
    assert injected.any() and (stored.tokens["piece"] != "").all()
    assert ((stored.tokens["top1_token"] == -1) == injected).all()
    assert ((stored.tokens["top1_piece"] == "") == injected).all()


def test_settings_that_cannot_work_are_refused_or_cautioned(tmp_path):
    path = file_of(tmp_path, entry("a", "b"))

    def config(*others, trainer=True, **parameters):
        methods = ["grpo", {"name": "offline_injection", **parameters}, *others]
        overrides = {"training.old_logp": "trainer"} if trainer else {}
        return make_config({}, {"methods": methods} | overrides)

    with pytest.raises(ConfigError, match=r"set training\.old_logp to 'trainer'"):
        config(trainer=False, path=path)
    absent = config(path=str(tmp_path / "absent"))
    assert "stop at its first step" in absent.cautions()[0] and "cannot be read" in absent.cautions()[0]
    with pytest.raises(ValueError, match="cannot be read"):
        Composition(absent.build_methods()).begin(Progress(0, 1, 1, 1, 1))
    with pytest.raises(ConfigError, match="each give a clip"):
        config("clip_higher", path=path, loss="luffy")
    config("clip_higher", path=path)
    config("clip_higher", loss="luffy", trainer=False)
    assert "divides by a constant" in config(path=path, loss="luffy").cautions()[0]
    assert config(path=path).cautions() == config(loss="luffy").cautions() == []
