"""``python -m trajdesign``: the command line."""

from trajdesign.cli.app import main

if __name__ == "__main__":  # a process that reads images ahead may import it, too
    main()
