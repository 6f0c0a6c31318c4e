"""Tiny random policies of several architectures, small enough to enumerate what they can say."""

import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen3Config

from workbench.policy.attention import NAME
from workbench.policy.model import Policy

CONFIGS = {"qwen2": Qwen2Config, "qwen3": Qwen3Config, "llama": LlamaConfig}


def tiny_model(architecture="qwen2", vocab=13, seed=0, spread=4.0, **fields):
    """A random causal LM, 2 layers, width 32, 4 heads on 2 key-value heads; `spread` makes its distributions uneven."""
    torch.manual_seed(seed)
    config = CONFIGS[architecture](
        vocab_size=vocab,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=128,
        eos_token_id=vocab - 1,
        bos_token_id=None,
        pad_token_id=None,
        **fields,
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation=NAME)
    model.generation_config.eos_token_id = vocab - 1
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(spread)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def tiny_tokenizer(vocab=13):
    words = {chr(97 + i): i for i in range(vocab)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="a")))


def tiny_policy(architecture="qwen2", vocab=13, seed=0, spread=4.0, **fields):
    return Policy(tiny_model(architecture, vocab, seed, spread, **fields), tiny_tokenizer(vocab))


def own_logps(model, prompt, response, temperature=1.0):
    """Oracle: log-probs [n] and entropies [n] of one response from the model's own forward and naive formulas."""
    ids = torch.cat([prompt, response]).unsqueeze(0)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].double() / temperature
    logp = logits.log_softmax(-1)
    return logp.gather(1, response.unsqueeze(1)).squeeze(1), -(logp.exp() * logp).sum(-1)
