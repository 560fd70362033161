"""Parts of a limit, in the order of size: by how much a value may pass it, or how much a design leaves below it."""

#: Rounding of double precision may add this part to a waveform that is exactly at a limit. A value that is a smaller
#: part of its limit is rounding alone, and shown as 0.
ROUNDING = 1e-9

#: The digits of a scanner file (float32 of the parts of the largest gradient, nine digits of text) may add this part.
WRITER_ROUNDING = 1e-6

#: A time this part of a raster beyond a multiple of it is that multiple.
RASTER_ROUNDING = 1e-6

#: The digits of a file of whatever origin (float32, or six of decimal text) may add this part.
FILE_ROUNDING = 1e-5

#: The projection stays this part below every limit, so that a waveform still keeps it when a file has rounded it.
PROJECTION_MARGIN = 1e-4

#: Dwell times are stored in whole ns, so a sequence exactly at the Nyquist speed may be this part beyond it.
DWELL_ROUNDING = 1e-3

#: A pattern that ends this part outside k_max, as rounding or a fit may leave it, is shrunk rather than refused.
EXTENT_ROUNDING = 1e-3

#: A bridge stays this part below the limits: room for a file's digits, and a tenth of it for those of the solver.
BRIDGE_MARGIN = 1e-3

#: A pattern is designed this part below the limits: room for files and for learning.
DESIGN_MARGIN = 0.02
