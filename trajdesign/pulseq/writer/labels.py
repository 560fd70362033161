"""The labels by which consoles and reconstructions sort ADC events."""

from types import SimpleNamespace

import pypulseq as pp

from trajdesign.trajectory import Trajectory


def shot_labels(
    trajectory: Trajectory, shot: int, average: int, n_averages: int, **others: int
) -> list[SimpleNamespace]:
    """Return the labels of an ADC event: ``LIN``, the number of its shot, and `others`.

    In a film ``PHS`` is its frame, and ``LIN`` counts within that; of several averages ``AVG`` is the number.
    """
    acquisition = trajectory.acquisition
    frame, line = divmod(shot, acquisition.shots_a_frame)
    values = {"LIN": line} | ({"PHS": frame} if acquisition.n_frames > 1 else {}) | others
    values |= {"AVG": average} if n_averages > 1 else {}
    return [pp.make_label(name, "SET", value) for name, value in values.items()]
