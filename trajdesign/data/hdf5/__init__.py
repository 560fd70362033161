"""HDF5 files from strangers: looked at in a process of their own, unpacked here."""
