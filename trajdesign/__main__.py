"""``python -m trajdesign``: the command line."""

from trajdesign.cli import main

main()
