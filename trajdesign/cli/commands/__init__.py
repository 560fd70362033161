"""The commands: one file each, with the function of its name."""
