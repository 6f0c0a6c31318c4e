"""The real vLLM server, as `python -m workbench serve` starts it: sampled from over HTTP, weights changed in place."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
import torch
from numpy.testing import assert_allclose

import workbench as wb
from tests.training.test_ranks import torchrun
from tests.vllm.test_vllm_engine import GREEDY, move, prompts, sample, scored
from tests.vllm.test_vllm_runs import shared_files
from workbench.policy.model import load_policy, policy_from
from workbench.rollout import EngineDied, NativeEngine, Stream
from workbench.rollout.vllm_server import VllmServerEngine
from workbench.sections import PolicyConfig, VllmConfig
from workbench.training import train_run

pytestmark = pytest.mark.vllm
PATIENCE = 300  # seconds
ON_SERVER = {"rollout.engine": "vllm", "rollout.vllm.max_sequences": 64, "training.old_logp": "trainer"}


@pytest.fixture(scope="module")
def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fields = ["rollout.vllm.cache_gib=0.25", "rollout.vllm.max_sequences=64", "policy.lora.rank=4"]
    command = [sys.executable, "-m", "workbench", "serve", *fields, "--port", str(port)]
    server = subprocess.Popen(command, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(PATIENCE):
            assert server.poll() is None, "the server ended"
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1).close()
                break
            except OSError:
                server_wait(server)
        yield address
    finally:
        stop(server)


def server_wait(server):
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(1)


def stop(server):
    """The server and its engine's processes: when it is told to end, nothing of it may stay."""
    try:
        server.terminate()
        server.wait(60)
        with pytest.raises(ProcessLookupError):
            os.killpg(server.pid, 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)


def served(address):
    """Names of the model and the adapters on the server."""
    with urllib.request.urlopen(f"{address}/v1/models", timeout=10) as answer:
        return {model["id"] for model in json.load(answer)["data"]}


@pytest.fixture(scope="module")
def engine(address):
    engine = VllmServerEngine(load_policy(), VllmConfig(server=address, max_sequences=64))
    yield engine
    engine.close()


def test_the_server_says_what_the_policy_does_with_its_alternatives(engine):
    r = sample(engine, temperature=(0.5, 1.0, 2.0), alternatives=3)
    torch.testing.assert_close(r.tokens.rollout_logp, scored(engine.policy, r), rtol=1e-3, atol=1e-3)
    top = torch.stack([r.tokens[f"top{rank}_logp"] for rank in (1, 2, 3)])
    assert (top[:-1] >= top[1:]).all() and (r.tokens.rollout_logp <= r.tokens.top1_logp).all()
    native = NativeEngine(engine.policy).generate(
        prompts(engine.policy), 8, torch.ones(3), 40, Stream(0, 1), alternatives=3
    )
    assert set(native.tokens) - set(r.tokens) == {"entropy"} and set(r.sequences) == set(native.sequences)
    assert all(r.tokens[name].dtype == native.tokens[name].dtype for name in r.tokens)
    assert engine.longest == 256
    same = sample(engine, temperature=(0.5, 1.0, 2.0))
    assert torch.equal(same.tokens.token, r.tokens.token)


def test_changed_weights_are_sampled_from_and_greedy_tokens_are_the_native_engines(engine):
    move(engine.policy, 0, 0.02)
    engine.weights_changed()
    r = sample(engine)
    torch.testing.assert_close(r.tokens.rollout_logp, scored(engine.policy, r), rtol=1e-3, atol=1e-3)
    greedy = sample(engine, samples=1, top_p=GREEDY)
    native = NativeEngine(engine.policy).generate(
        prompts(engine.policy), 1, torch.ones(3), 40, Stream(0, 1), top_p=GREEDY
    )
    assert torch.equal(greedy.tokens.token, native.tokens.token)


def test_adapters_go_over_after_the_base(address):
    policy = policy_from(PolicyConfig(lora={"rank": 4, "alpha": 8.0}), "cpu", 0)
    engine = VllmServerEngine(policy, VllmConfig(server=address, max_sequences=64))
    for round_ in range(2):
        with torch.no_grad():
            for number, parameter in enumerate(policy.parameters):
                generator = torch.Generator().manual_seed(100 * round_ + number)
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
        engine.weights_changed()
        r = sample(engine)
        torch.testing.assert_close(r.tokens.rollout_logp, scored(policy, r), rtol=1e-3, atol=1e-3)
    next_run = VllmServerEngine(policy, engine.config)  # while the first's adapter is there, as after its death
    for one in (next_run, engine):
        again = sample(one)
        torch.testing.assert_close(again.tokens.rollout_logp, r.tokens.rollout_logp, rtol=1e-3, atol=1e-3)
        mine = one._model
        assert mine in served(address)
        one.close()
        assert mine not in served(address)


@pytest.mark.parametrize("rank", [0, 4])
def test_two_ranks_sample_from_one_server_what_one_does(address, tmp_path, rank):
    overrides = ON_SERVER | {"rollout.vllm.server": address, "policy.lora.rank": rank, "training.steps": 3}
    overrides |= {"storage.keep_rollouts_every": 1, "evaluation.sets": []}
    config, before = wb.preset("smoke", overrides), shared_files()
    process = torchrun(tmp_path / "ranks", config)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    many = wb.open_run(tmp_path / "ranks" / config.run_id)
    one = wb.open_run(train_run(config, tmp_path / "one", log=lambda line: None))
    assert many.provenance["ranks"] == 2 and (many.metrics["gap/max"] < 0.01).all()
    assert many.rollouts(1).tokens["token"].equals(one.rollouts(1).tokens["token"])
    assert_allclose(many.metrics["entropy/mean"], one.metrics["entropy/mean"], rtol=0.02)
    assert shared_files() == before


def test_a_run_trains_with_it_and_leaves_nothing_behind(address, tmp_path):
    overrides = ON_SERVER | {"rollout.vllm.server": address, "evaluation.samples": 2}
    before = shared_files()
    run = wb.open_run(train_run(wb.preset("smoke", overrides), tmp_path, log=lambda line: None))
    assert run.status["state"] == "finished" and (run.metrics["gap/max"] < 0.01).all()
    assert shared_files() == before


DIES = """
import os, sys
from workbench.policy.model import load_policy
from workbench.rollout import broadcast, vllm_server
from workbench.sections import VllmConfig
from tests.vllm.test_vllm_engine import sample
if sys.argv[2] == "sending":
    broadcast._finish = lambda work, answer: os._exit(9)
post = vllm_server.Server.post
vllm_server.Server.post = lambda self, path, **body: os._exit(9) if path == sys.argv[2] else post(self, path, **body)
sample(vllm_server.VllmServerEngine(load_policy(), VllmConfig(server=sys.argv[1])))
"""


@pytest.mark.parametrize("moment", ["update_weights", "sending", "finish_weight_update"])
def test_a_trainer_that_dies_in_an_update_leaves_a_server_for_the_next(address, moment):
    assert subprocess.run([sys.executable, "-c", DIES, address, moment]).returncode == 9
    following = VllmServerEngine(load_policy(), VllmConfig(server=address, max_sequences=64))
    r = sample(following)
    torch.testing.assert_close(r.tokens.rollout_logp, scored(following.policy, r), rtol=1e-3, atol=1e-3)
    following.close()


def test_a_run_whose_server_another_took_is_told_and_the_other_goes_on(address):
    first, second = (VllmServerEngine(load_policy(), VllmConfig(server=address, max_sequences=64)) for _ in range(2))
    sample(first)
    move(second.policy, 0, 0.02)
    before = sample(second).tokens
    first.weights_changed()
    with pytest.raises(EngineDied, match=r"refused update_weights .*another trainer has joined"):
        sample(first)
    assert torch.equal(sample(second).tokens.rollout_logp, before.rollout_logp)
    second.weights_changed()
    assert torch.equal(sample(second).tokens.rollout_logp, before.rollout_logp)
    second.close()
    again = sample(first)  # after its failure it starts anew, as the engine in a process of its own does
    torch.testing.assert_close(again.tokens.rollout_logp, scored(first.policy, again), rtol=1e-3, atol=1e-3)
    first.close()


def test_a_server_that_is_gone_or_refuses_is_told(engine):
    with pytest.raises(ValueError, match=r"does not answer .*start it with `python -m workbench serve`"):
        VllmServerEngine(engine.policy, VllmConfig(server="http://127.0.0.1:9"))
    engine._model = "another"
    with pytest.raises(EngineDied, match="refused inference/v1/generate"):
        sample(engine)
    engine._model = "policy"
    engine.server.address = "http://127.0.0.1:9"
    with pytest.raises(EngineDied, match=r"is gone .*train the same config to continue"):
        sample(engine)
