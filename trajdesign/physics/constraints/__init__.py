"""Limits on a trajectory: one file a constraint."""
