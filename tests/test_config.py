"""Refusals before compute, and the hash that names a run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import workbench as wb
from workbench.config import METHODS, RunConfig, make_config, parse_overrides

REFUSALS = {
    "seeed=1": "unknown field 'seeed'; did you mean 'seed'",
    "objective.clip_hihg=0.3": "did you mean 'clip_high'",
    "rollout.temperature=-1": "rollout.temperature",
    "rollout.temperature=warm": "rollout.temperature",
    "objective.clip_low=1.5": "objective.clip_low",
    "optimiser.learning_rate=0": "optimiser.learning_rate",
    "training.updates_per_rollout=3": "must divide rollout.prompts",
    "optimiser.warmup_updates=1000000": "lower it",
    "rollout.samples=1": "use at least 2",
    "task.name=reduc": "did you mean 'reduce'",
    "evaluation.sets=[reduce, countdwon]": "did you mean 'countdown'",
    "methods=[grop]": "did you mean 'grpo'",
    "methods=[pos_adv_reweight]": "give no baseline",
    "methods=[grpo, grpo]": "each give a baseline",
    "methods=[grpo, {name: pos_adv_reweight, targt: 1}]": "did you mean 'target'",
    "methods=[grpo, {name: pos_adv_reweight, target: -1}]": "target",
    "name=../up": "name",
    "optimiser=3": "optimiser",
    "policy.precision=float8": "policy.precision",
}


@pytest.mark.parametrize("assignment", REFUSALS)
def test_refusals_name_the_field_and_the_remedy(assignment):
    with pytest.raises(wb.ConfigError) as refusal:
        wb.preset("cpu", parse_overrides([assignment]))
    assert REFUSALS[assignment] in str(refusal.value)


@pytest.mark.parametrize("text", ["seed", "=3", "seed=[", ""])
def test_malformed_overrides_are_refused(text):
    with pytest.raises(wb.ConfigError):
        parse_overrides([text])


def test_every_field_has_help():
    def fields(model, prefix=""):
        for name, info in model.model_fields.items():
            section = info.annotation
            if hasattr(section, "model_fields"):
                yield from fields(section, f"{prefix}{name}.")
            else:
                yield prefix + name, info

    missing = [name for name, info in fields(RunConfig) if not info.description]
    assert not missing


@pytest.mark.parametrize("name", wb.PRESETS)
def test_presets_are_valid_and_survive_yaml(name, tmp_path):
    config = wb.preset(name)
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    assert wb.load_config(path) == config
    assert wb.load_config(path).run_id == config.run_id


def test_unknown_presets_and_bad_files_are_refused(tmp_path):
    with pytest.raises(wb.ConfigError, match="did you mean 'smoke'"):
        wb.preset("smok")
    with pytest.raises(wb.ConfigError, match="cannot be read"):
        wb.load_config(tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(wb.ConfigError, match="must hold a mapping"):
        wb.load_config(tmp_path / "list.yaml")
    (tmp_path / "evil.yaml").write_text("seed: !!python/object/apply:os.system ['true']\n")
    with pytest.raises(wb.ConfigError, match="cannot be read"):
        wb.load_config(tmp_path / "evil.yaml")


def test_the_hash_sees_what_changes_the_result_and_nothing_else():
    base = wb.preset("cpu")
    same = [{"name": "other"}, {"policy.device": "cpu"}, {"policy.activation_checkpointing": True},
            {"storage.checkpoint_every": 3}, {"methods": "grpo"},
            {"methods": [{"name": "grpo", "epsilon": 1e-6}]}]  # fmt: skip
    for overrides in same:
        assert wb.preset("cpu", overrides).content_hash == base.content_hash, overrides
    different = [{"seed": 1}, {"objective.clip_high": 0.28}, {"methods": [{"name": "grpo", "epsilon": 1e-4}]},
                 {"training.steps": 7}, {"evaluation.samples": 4}]  # fmt: skip
    assert len({wb.preset("cpu", o).content_hash for o in different} | {base.content_hash}) == len(different) + 1


def test_infinite_bounds_have_a_hash_and_yaml(tmp_path):
    config = wb.preset("cpu", parse_overrides(["objective.clip_high=.inf", "objective.clip_low=1"]))
    (tmp_path / "c.yaml").write_text(config.to_yaml())
    assert wb.load_config(tmp_path / "c.yaml").content_hash == config.content_hash != wb.preset("cpu").content_hash


VALUES = st.one_of(st.none(), st.integers(), st.text(max_size=5), st.lists(st.integers()))


@given(st.dictionaries(st.text(max_size=8), VALUES, min_size=1, max_size=3))
def test_unknown_trees_are_config_errors_and_nothing_else(tree):
    tree = {f"x{key}": value for key, value in tree.items()}
    with pytest.raises(wb.ConfigError, match="unknown field"):
        make_config(tree)


@given(st.sampled_from(sorted(RunConfig.model_fields)), VALUES)
def test_any_value_of_a_field_is_taken_or_refused_cleanly(field, value):
    try:
        config = make_config({field: value})
    except wb.ConfigError:
        return
    assert config.run_id


def test_methods_come_fresh():
    config = wb.preset("cpu", {"methods": ["grpo", "pos_adv_reweight"]})
    first, second = config.build_methods()[1], config.build_methods()[1]
    first.observe({"entropy/mean": 9.0})
    assert first.measures() != second.measures()
    assert set(METHODS) >= {"grpo", "pos_adv_reweight"}


def test_hashes_of_the_first_runs_never_change():
    """Written down once: fields added since are hashed only where they differ from their default."""
    assert RunConfig().content_hash == "09d3f393"
    hashes = {name: wb.preset(name).content_hash for name in wb.PRESETS}
    assert hashes == {"smoke": "f7232cb3", "cpu": "549a3bb5", "gpu": "e401e66d", "paper": "22b635bc"}


@pytest.mark.parametrize(
    "override",
    [
        {"task.prompt_template": "Q: {prompt}"},
        {"task.chat_template": True},
        {"task.chat_template": True, "task.system_prompt": "Be brief."},
        {"task.subset.kind": "random", "task.subset.size": 8},
        {"task.subset.kind": "random", "task.subset.size": 9},
        {"policy.lora.rank": 8},
        {"policy.weights": "bfloat16", "policy.precision": "bfloat16"},
        {"optimiser.name": "sgd"},
    ],
)
def test_later_fields_are_hashed_once_they_are_set(override):
    assert wb.preset("cpu", override).content_hash not in (wb.preset("cpu").content_hash, RunConfig().content_hash)


def test_a_config_from_before_weights_went_over_the_network_is_read(tmp_path):
    config = wb.preset("smoke")
    older = tmp_path / "config.yaml"
    older.write_text(config.to_yaml().replace("    server: ''\n", "    server: ''\n    exchange: ''\n"))
    assert "exchange" in older.read_text() and wb.load_config(older).content_hash == config.content_hash
    older.write_text(older.read_text().replace("exchange: ''", "exchange: /tmp"))
    with pytest.raises(wb.ConfigError, match=r"unknown field 'rollout\.vllm\.exchange'"):
        wb.load_config(older)
