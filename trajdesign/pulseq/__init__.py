"""Whole Pulseq files: what they play, what they must keep, and the parts that templates write."""
