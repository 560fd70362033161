"""Where the course of a training goes besides the terminal and the run folder: one file a tool."""
