"""Patterns to start from, files of trajectories, and what fits into a readout."""
