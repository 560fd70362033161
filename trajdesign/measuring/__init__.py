"""The way back from the scanner: raw data in, images out, and a word on whether k was right."""
