"""What leaves the house: scanner files with their proof, the virtual scan, networks for others."""
