"""A causal LM as a policy: loading, packed forward, and the fused head that gives log-prob and exact entropy per token."""
