"""What is known of a virtual scan, SI: the words of ``scan.json``."""

from typing import Any, NotRequired, TypedDict


class Scores(TypedDict):
    """How good an image is; PSNR in dB."""

    psnr: float
    ssim: float
    nrmse: float


class FilmFacts(TypedDict):
    """Numbers of a film."""

    n_frames: NotRequired[int]


class FileFacts(FilmFacts):
    """Numbers of a Pulseq file."""

    path: str
    md5: str
    matrix: tuple[int, ...]
    n_slices: int
    n_shots: int
    n_samples: int
    duration: float
    nucleus: NotRequired[str]
    gamma: NotRequired[float]


class CallFacts(FileFacts):
    """Numbers of the call, and of the file beside a run."""

    object: str
    beats: str | None
    run: str | None
    n_coils: int
    t2_star: float | None
    t2: float | None
    noise: float
    noise_correlation: float
    seed: int
    response: dict[str, Any] | None
    left_out_rad: float
    off_resonance: list[float]
    max_told_k_error_fov: NotRequired[float]
    turns_across_slice: NotRequired[float]


class ScanFacts(CallFacts):
    """What ``scan.json`` holds: see `trajdesign.measuring.virtual_scan.Scanned`."""

    slice: int
    echo_time: float
    image: Scores
    promised: NotRequired[Scores]
    nrmse_to_promised: NotRequired[float]
    max_k_error_fov: NotRequired[float]
    nrmse_of_slices: NotRequired[list[float]]
    is_of_run: NotRequired[bool]
    departure: NotRequired[str | None]
    remark: NotRequired[str | None]
