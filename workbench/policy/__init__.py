"""A causal LM as a policy: loading, packed forward, and the head that gives log-prob and exact entropy per token."""
