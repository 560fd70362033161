"""Learnable trajectories: one file a parameterization."""
