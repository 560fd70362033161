"""By how much of a limit rounding may pass it: one table, in the order of their size."""

#: Part of a limit that rounding may add to a waveform exactly at it.
ROUNDING = 1e-9


#: The same of one that was in a file, from the digits of its gradients (float32).
FILE_ROUNDING = 1e-5


#: Dwell times are stored in whole ns, so a sequence exactly at the Nyquist speed may be this part beyond it.
DWELL_ROUNDING = 1e-3
