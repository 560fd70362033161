"""What goes otherwise in a scan than was asked: one file a perturbation."""
