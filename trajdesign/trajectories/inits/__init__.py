"""Initial trajectories: one file a pattern."""
