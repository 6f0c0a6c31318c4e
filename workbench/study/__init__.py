"""Carrying out studies: launching training runs from notebooks and scripts, executing notebooks with parameters.

`launch` trains a config in the right process; `notebooks` runs a notebook through papermill and exports its report;
`evaluate` samples a run or a model on evaluation sets. Import from these: papermill and nbconvert take seconds.
"""
