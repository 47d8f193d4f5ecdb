# ruff: noqa: N999  the name of the folder is the mission's
"""Experiment 1: FlexAttention in transformers' Qwen3, without copying model code, held against what is there already."""
