"""The joint training of a trajectory and a network, the run folder that it leaves, and how one goes on."""
