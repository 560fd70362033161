"""Grids of runs, side by side: trained, compared, tabulated."""
