"""RunConfig: one typed, validated tree. Its content hash names the run.

Every field states type, unit, range and help. Unknown keys are refused with the nearest valid name, impossible
combinations with one sentence that names the field and the remedy, before any compute is spent. Fields that cannot
change the result (`name`, `policy.device`, `policy.activation_checkpointing`, `rollout.vllm`, `storage`) stay outside
the hash.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from workbench.sections import OptimiserConfig, PolicyConfig, Section, VllmConfig

METHODS: dict[str, type[BaseModel]] = {}
"""Registered methods by name; `workbench.methods` fills it on import, so that this module depends on none of them."""
BUNDLES: dict[str, type[BaseModel]] = {}
"""Registered bundles by name: published recipes that stand for several methods; filled likewise."""
METHOD_LIST_CHECKS: list[Callable[[list], object]] = []
"""Called with a config's method objects, to raise `ValueError` if they make no objective; filled likewise."""
TASKS: dict[str, object] = {}
"""Bundled tasks by name; `workbench.tasks` fills it on import."""
TASK_CHECKS: list[Callable[[str], object]] = []
"""Called with the name of every task and evaluation set, to raise `ValueError` if there is none; filled likewise."""


HASHED_IF_SET = {
    "task": ("prompt_template", "system_prompt", "chat_template", "subset"),
    "evaluation": ("top_p", "max_new_tokens"),
    "policy": ("weights", "lora"),
    "optimiser": ("name", "momentum"),
}
"""Fields by section that are part of the content hash only where they differ from their default."""


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the field and the remedy."""


SectionT = TypeVar("SectionT", bound=Section)


class SubsetConfig(Section):
    """Which of the training prompts are used; see `workbench.training.subsets`."""

    kind: Literal["all", "clusters", "random", "pass_rate", "perplexity"] = Field(
        "all",
        description="all prompts; those of the largest clusters of the policy's embeddings; as many at random; those "
        "the policy solves at a rate in a range; those it finds least or most perplexing",
    )
    size: int = Field(0, ge=0, description="random, perplexity: prompts kept")
    clusters: int = Field(1000, ge=1, description="clusters: K of K-means")
    largest: int = Field(0, ge=0, description="clusters: M, the number of clusters kept whole, largest first")
    pass_rate_low: float = Field(0.0, ge=0, le=1, description="pass_rate: lowest share of correct responses kept")
    pass_rate_high: float = Field(1.0, ge=0, le=1, description="pass_rate: highest share of correct responses kept")
    samples: int = Field(8, ge=1, description="pass_rate: responses per prompt")
    order: Literal["lowest", "highest"] = Field("lowest", description="perplexity: which end is kept")

    @model_validator(mode="after")
    def _stated(self) -> SubsetConfig:
        needed = {"clusters": "largest", "random": "size", "perplexity": "size"}.get(self.kind)
        if needed and getattr(self, needed) == 0:
            raise ValueError(f"task.subset.kind '{self.kind}' needs task.subset.{needed}; set it")
        if self.largest > self.clusters:
            raise ValueError(f"task.subset.largest ({self.largest}) exceeds task.subset.clusters ({self.clusters})")
        if self.pass_rate_low > self.pass_rate_high:
            raise ValueError("task.subset.pass_rate_low exceeds task.subset.pass_rate_high; swap them")
        return self


class TaskConfig(Section):
    name: str = Field("reduce", description="the task that gives prompts and verifies responses")
    train_size: int = Field(4096, ge=1, description="training prompts; an epoch goes through them once, shuffled")
    prompt_template: str = Field(
        "", description="what stands around a question: text with {prompt} in it; '' takes the task's own"
    )
    system_prompt: str = Field("", description="system message of the chat; needs task.chat_template")
    chat_template: bool = Field(
        False, description="put every prompt, evaluation included, into the chat template of the policy's tokenizer"
    )
    subset: SubsetConfig = Field(default_factory=SubsetConfig, description="which training prompts are used")

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        for check in TASK_CHECKS:
            check(name)
        return name

    @model_validator(mode="after")
    def _readable(self) -> TaskConfig:
        if self.prompt_template and self.prompt_template.count("{prompt}") != 1:
            raise ValueError("task.prompt_template must contain {prompt} exactly once")
        if self.system_prompt and not self.chat_template:
            raise ValueError("task.system_prompt is a chat's first message; set task.chat_template to true")
        return self


class RolloutConfig(Section):
    engine: Literal["native", "vllm"] = Field(
        "native", description="sampling engine: the trainer's own weights in place, or vLLM in a process of its own"
    )
    vllm: VllmConfig = Field(default_factory=VllmConfig, description="how vLLM is run, where it is")
    prompts: int = Field(32, ge=1, description="prompts per rollout step")
    samples: int = Field(16, ge=1, description="responses per prompt: the group size")
    temperature: float = Field(1.0, gt=0, le=10, description="sampling temperature; log-probs and entropy use it too")
    top_p: float = Field(
        1.0, gt=0, le=1, description="nucleus: sample from the likeliest tokens that hold this probability; 1: from all"
    )
    max_new_tokens: int = Field(0, ge=0, description="longest response in tokens; 0 takes the task's own bound")


class ObjectiveConfig(Section):
    clip_low: float = Field(0.2, ge=0, le=1, description="ε_low: ratios below 1 − ε_low are clipped; 1 switches it off")
    clip_high: float = Field(0.2, ge=0, description="ε_high: ratios above 1 + ε_high are clipped; .inf switches it off")
    denominator: Literal["tokens", "sequences", "constant"] = Field(
        "tokens",
        description="loss = Σ over the optimiser step / this: all its tokens; sequences (mean over each one's tokens); "
        "or sequences × max_new_tokens (constant)",
    )


class TrainingConfig(Section):
    steps: int = Field(100, ge=1, description="rollout steps")
    updates_per_rollout: int = Field(4, ge=1, description="N: optimiser updates per rollout batch, one pass over it")
    old_logp: Literal["rollout", "trainer"] = Field(
        "rollout",
        description="where the ratio's denominator comes from: the sampler's log-probs (exact for the native engine), "
        "or a separate scoring pass by the trainer",
    )
    score_temperature: Literal["sampling", "base"] = Field(
        "sampling",
        description="temperature of the trainer's log-probs and entropy: each response's own, or rollout.temperature "
        "for all, whatever temperature a method sampled at",
    )
    micro_batch_tokens: int = Field(4096, ge=64, description="tokens per forward and backward; changes rounding only")


class EvaluationConfig(Section):
    sets: tuple[str, ...] = Field(("reduce",), description="evaluation sets; () evaluates nothing")
    prompts: int = Field(128, ge=1, description="prompts per set")
    samples: int = Field(16, ge=1, description="samples per prompt; pass@k is estimated for k up to this")
    temperature: float = Field(1.0, gt=0, le=10, description="sampling temperature")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus, as rollout.top_p")
    max_new_tokens: int = Field(0, ge=0, description="longest response in tokens; 0 takes each set's own bound")
    every: int = Field(0, ge=0, description="evaluate every so many rollout steps; 0: only before and after training")

    @field_validator("sets")
    @classmethod
    def _known(cls, sets: tuple[str, ...]) -> tuple[str, ...]:
        for name in sets:
            for check in TASK_CHECKS:
                check(name)
        return sets


class StorageConfig(Section):
    keep_rollouts_every: int = Field(
        5, ge=1, description="rollout steps whose full tables are kept (with first and last)"
    )
    alternatives: int = Field(
        3, ge=0, le=8, description="likeliest tokens kept beside every token of those tables, with their log-probs"
    )
    checkpoint_every: int = Field(10, ge=1, description="rollout steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints kept; older ones are deleted")
    measure_change_share: float = Field(
        0.25,
        ge=0,
        le=1,
        description="share of a step's prompts scored again after its updates, for ΔH on the same tokens (change/… in "
        "metrics.jsonl); drawn by seed and step; 0 measures no change. Training does not depend on it",
    )


class RunConfig(Section):
    """Everything that determines a run. Hash and equality ignore what cannot change the result."""

    name: str = Field("run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,60}$", description="readable part of the run's id")
    seed: int = Field(0, ge=0, lt=2**32, description="seeds prompts, sampling and everything random")
    policy: PolicyConfig = Field(default_factory=PolicyConfig)
    task: TaskConfig = Field(default_factory=TaskConfig)
    rollout: RolloutConfig = Field(default_factory=RolloutConfig)
    methods: tuple[dict[str, Any], ...] = Field(
        ("grpo",),
        description="methods in order: names, or {name: …, parameter: value}; see `python -m workbench methods`",
    )
    objective: ObjectiveConfig = Field(default_factory=ObjectiveConfig)
    optimiser: OptimiserConfig = Field(default_factory=OptimiserConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)

    @field_validator("methods", mode="before")
    @classmethod
    def _canonical_methods(cls, methods: Any) -> list[dict[str, Any]]:
        """Names and parameters checked, defaults filled in, so that equal methods hash equally."""
        entries = methods if isinstance(methods, list | tuple) else [methods]
        return [_canonical_method(method) for entry in entries for method in _expanded(entry)]

    @model_validator(mode="after")
    def _combinations(self) -> RunConfig:
        rollout, training = self.rollout, self.training
        if rollout.prompts % training.updates_per_rollout:
            raise ValueError(
                f"training.updates_per_rollout ({training.updates_per_rollout}) must divide rollout.prompts "
                f"({rollout.prompts}), since every update takes an equal share of the prompts; change either"
            )
        updates = training.steps * training.updates_per_rollout
        if self.optimiser.warmup_updates > updates:
            raise ValueError(
                f"optimiser.warmup_updates ({self.optimiser.warmup_updates}) exceeds the run's {updates}; lower it"
            )
        if rollout.engine == "vllm" and training.old_logp != "trainer":
            raise ValueError(
                "rollout.engine 'vllm' gives no entropy, and log-probs that differ from the trainer's by rounding; set "
                "training.old_logp to 'trainer'"
            )
        if training.score_temperature == "base" and training.old_logp != "trainer":
            raise ValueError(
                "training.score_temperature 'base' needs log-probs the sampler does not have; set training.old_logp to "
                "'trainer'"
            )
        methods = self.build_methods()
        if rollout.top_p < 1 and (training.old_logp != "trainer" or all(m.name != "tis" for m in methods)):
            raise ValueError(
                f"rollout.top_p is {rollout.top_p}, but the trainer's log-probs are of the untruncated policy: every "
                "ratio would be wrong; set it to 1, or set training.old_logp to 'trainer' and add method 'tis'"
            )
        for check in METHOD_LIST_CHECKS:
            check(methods)
        for method in methods:
            method.check(self)
        return self

    def build_methods(self) -> list:
        """Fresh method objects in order (with fresh state)."""
        return [METHODS[m["name"]](**{k: v for k, v in m.items() if k != "name"}) for m in self.methods]

    def keeps_rollouts(self, step: int) -> bool:
        """Whether the full tables of rollout step `step` are stored."""
        return step % self.storage.keep_rollouts_every == 0 or step in (1, self.training.steps)

    def cautions(self) -> list[str]:
        """What this config allows but probably does not mean, one sentence each."""
        methods = self.build_methods()
        return [*self._inert_bounds(methods), *(s for method in methods for s in method.cautions(self))]

    def _inert_bounds(self, methods: list) -> list[str]:
        plain = ObjectiveConfig()
        fields = [f for f in ("clip_low", "clip_high") if getattr(self.objective, f) != getattr(plain, f)]
        named = " and ".join(f"objective.{field}" for field in fields)
        giving = [method.name for method in methods if "clip" in method.exclusive()]
        if fields and giving:
            return [f"{named} cannot act: {giving[0]} gives the clip bounds; set them there"]
        if fields and self.training.updates_per_rollout == 1:
            return [f"{named} cannot act: with training.updates_per_rollout 1 every ratio is 1"]
        return []

    @property
    def run_id(self) -> str:
        return f"{self.name}-{self.content_hash}"

    @property
    def content_hash(self) -> str:
        """8 hex digits of the canonical form of every field that can change the result.

        Fields named in `HASHED_IF_SET` count only where they differ from their default, so that a run made before
        there were such fields keeps its hash, and with it its folder.
        """
        machine = {"device", "activation_checkpointing", "kernels"}
        outside = {"name": True, "storage": True, "policy": machine, "rollout": {"vllm"}}
        content = self.model_dump(mode="json", exclude=outside)
        for section, fields in HASHED_IF_SET.items():
            plain = type(getattr(self, section))().model_dump(mode="json")
            for field in fields:
                if content[section][field] == plain[field]:
                    del content[section][field]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]

    def to_yaml(self) -> str:
        content = json.loads(json.dumps(self.model_dump(mode="python"), default=list))
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _expanded(entry: Any) -> list[dict[str, Any]]:
    """A bundle's methods, or the one method itself, each with its name."""
    given = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(given, Mapping):
        raise ValueError(f"methods are names or mappings with a name, got {entry!r}")
    name = given.get("name")
    if name not in BUNDLES:
        return [dict(given)]
    parameters = {key: value for key, value in given.items() if key != "name"}
    return _validated(BUNDLES[name], parameters, f"methods.{name}").expand()


def _canonical_method(given: dict[str, Any]) -> dict[str, Any]:
    name = given.pop("name", None)
    if not isinstance(name, str) or name not in METHODS:
        raise ValueError(f"unknown method '{name}'{nearest(str(name), [*METHODS, *BUNDLES])}")
    return {"name": name, **_validated(METHODS[name], given, f"methods.{name}").model_dump()}


def nearest(name: str, valid: Mapping | list[str]) -> str:
    """'; did you mean …' for an error message, or the list of valid names."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; valid names: {', '.join(sorted(valid))}"


def make_config(values: Mapping[str, Any] | None = None, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """A RunConfig from a nested mapping and dotted overrides, e.g. {"objective.clip_high": 0.28}.

    Raises `ConfigError`, one line per problem, each with the field's path.
    """
    return make_section(RunConfig, values, overrides)


def make_section(model: type[SectionT], values: Mapping | None = None, overrides: Mapping | None = None) -> SectionT:
    """Like `make_config`, for any section that is configured on its own."""
    tree = json.loads(json.dumps(dict(values or {}), default=list))
    for path, value in (overrides or {}).items():
        _set(tree, path, value)
    return _validated(model, tree, "")


def _set(tree: dict, path: str, value: Any) -> None:
    *parents, leaf = path.split(".")
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(f"'{path}': '{parent}' is a value, not a section; set it as a whole")
    node[leaf] = value


def _validated(model: type[BaseModel], values: Mapping[str, Any], prefix: str) -> BaseModel:
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        lines = [_explain(model, problem, prefix) for problem in error.errors()]
        raise ConfigError("\n".join(dict.fromkeys(lines))) from None


def _explain(model: type[BaseModel], problem: Any, prefix: str) -> str:
    location = [str(part) for part in problem["loc"]]
    path = ".".join(filter(None, [prefix, *location]))
    if problem["type"] == "extra_forbidden":
        return f"unknown field '{path}'{nearest(location[-1], _fields_at(model, location[:-1]))}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{path}: {message}" if path and path not in message else message
    return f"{path}: {message[0].lower()}{message[1:]}, got {problem['input']!r}"


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        model = model.model_fields[part].annotation
    return list(model.model_fields)


def load_config(path: str | Path, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Read a YAML file (safe loader). Raises `ConfigError` for a missing or malformed file."""
    try:
        values = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"config file '{path}' cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"config file '{path}' must hold a mapping of fields, found {type(values).__name__}")
    return make_config(values, overrides)


def parse_overrides(assignments: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """["seed=1", "objective.clip_high=.inf"] -> {"seed": 1, …}; values are YAML. Raises `ConfigError`."""
    overrides = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise ConfigError(f"'{assignment}' is not of the form field=value")
        try:
            overrides[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"'{assignment}': the value is not valid YAML; quote it") from None
    return overrides
