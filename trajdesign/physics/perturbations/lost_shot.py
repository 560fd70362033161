"""A shot of which nothing arrives."""

from dataclasses import replace

import numpy as np

from trajdesign.errors import ConfigError
from trajdesign.physics.perturbation import Scan, happens


def lost_shot(scan: Scan, random: np.random.Generator, *, shot: int | None = None, probability: float = 0.5) -> Scan:
    """Return a scan in which the samples of one shot are zero.

    Parameters
    ----------
    shot
        Which one, counted from 0; without it another in each scan.
    probability
        In which part of all scans a shot is lost.
    """
    n_shots = len(scan.factor)
    if shot is not None and not 0 <= shot < n_shots:
        raise ConfigError(f"perturbation.lost_shot.shot is {shot}; the scan has {n_shots} shots, counted from 0.")
    is_lost, any_shot = happens(random, probability, "lost_shot"), int(random.integers(n_shots))
    if not is_lost:
        return scan
    factor = scan.factor.clone()
    factor[any_shot if shot is None else shot] = 0
    return replace(scan, factor=factor)
