"""The labels by which consoles and reconstructions sort ADC events."""

from types import SimpleNamespace

import pypulseq as pp

from trajdesign.trajectory import Trajectory


def shot_labels(trajectory: Trajectory, shot: int) -> list[SimpleNamespace]:
    """Return the labels of a shot: ``LIN``, its number; in a film ``PHS``, its frame, and LIN counts within that."""
    acquisition = trajectory.acquisition
    frame, line = divmod(shot, acquisition.shots_a_frame)
    of_film = [pp.make_label("PHS", "SET", frame)] if acquisition.n_frames > 1 else []
    return [pp.make_label("LIN", "SET", line), *of_film]


def average_label(average: int, n_averages: int) -> list[SimpleNamespace]:
    """Return the label ``AVG`` of an ADC event; none where each shot is played once."""
    return [pp.make_label("AVG", "SET", average)] if n_averages > 1 else []
