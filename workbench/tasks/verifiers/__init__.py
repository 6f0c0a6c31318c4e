"""Verifiers that run in processes of their own: `worker` is the process, the other modules are what it can judge.

The process runs `worker.py` as a script, with this folder first on its path, so that it starts without the workbench.
"""
