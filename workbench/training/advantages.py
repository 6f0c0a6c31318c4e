"""From sampled tokens to advantages: decode, verify, reward, baseline, token shaping."""

from __future__ import annotations

import torch

from workbench import ranks
from workbench.methods import Composition
from workbench.tables import Rollouts
from workbench.tasks import Prompt, Verdict, get_task


def verify(rollouts: Rollouts, prompts: list[Prompt], tokenizer) -> Rollouts:
    """Decode the responses and attach the verdicts: `prompt_text, text, reward, correct, answer` and the task's
    measures.

    prompts[i] is the question of `rollouts.prompts[i]`.
    """
    lengths = rollouts.sequences.length.tolist()
    ids = [part.tolist() for part in rollouts.tokens.token.cpu().split(lengths)]
    texts = tokenizer.batch_decode(ids, clean_up_tokenization_spaces=False)
    asked = [prompts[i] for i in rollouts.sequences.prompt.tolist()]
    verdicts = _verdicts(asked, texts)
    device = rollouts.tokens.token.device
    measures = {name: _column([v.measures[name] for v in verdicts], device) for name in verdicts[0].measures}
    sequences = rollouts.sequences.with_columns(
        prompt_text=[prompt.text for prompt in asked],
        text=texts,
        reward=torch.tensor([v.reward for v in verdicts], dtype=torch.float32, device=device),
        correct=torch.tensor([v.correct for v in verdicts], dtype=torch.bool, device=device),
        answer=[v.answer for v in verdicts],
        **measures,
    )
    return Rollouts(rollouts.prompts, sequences, rollouts.tokens)


def _verdicts(asked: list[Prompt], texts: list[str]) -> list[Verdict]:
    """One per response, each rank judging its share; a task gets its own at once, since a verifier may work in several
    processes."""
    own = ranks.share(len(asked))
    verdicts: dict[int, Verdict] = {}
    with ranks.as_one():
        for name in dict.fromkeys(asked[row].task for row in own):
            rows = [row for row in own if asked[row].task == name]
            given = get_task(name).verify_all([asked[row] for row in rows], [texts[row] for row in rows])
            verdicts.update(zip(rows, given, strict=True))
    return ranks.gathered_list([verdicts[row] for row in own])


def _column(values: list, device: torch.device) -> torch.Tensor | list[str]:
    return [str(v) for v in values] if isinstance(values[0], str) else torch.tensor(values, device=device)


def assign_advantages(rollouts: Rollouts, methods: Composition) -> Rollouts:
    """Attach `reward` (after the methods' shaping), the sequences' `advantage`, the tokens' `advantage` and, where a
    critic is trained, their `critic_target`."""
    rollouts = rollouts.with_sequences(reward=methods.reward(rollouts, rollouts.sequences.reward))
    rollouts = rollouts.with_sequences(advantage=methods.baseline(rollouts))
    rollouts = rollouts.with_tokens(advantage=methods.advantage(rollouts))
    target = methods.critic_target(rollouts)
    return rollouts if target is None else rollouts.with_tokens(critic_target=target)
