"""Files for scanners and other software: one file a format."""
