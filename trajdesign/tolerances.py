"""By how much of a limit a value may pass it, and still keep it: in the order of size, each with its reason."""

#: Rounding of double precision may add this part to a waveform exactly at a limit.
ROUNDING = 1e-9

#: The digits of a file (float32, or six of decimal text) may add this part to a waveform exactly at a limit.
FILE_ROUNDING = 1e-5

#: Dwell times are stored in whole ns, so a sequence exactly at the Nyquist speed may be this part beyond it.
DWELL_ROUNDING = 1e-3
