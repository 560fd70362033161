"""What the scanner does to an image, and back: NUFFT, convolution, density compensation, PSF."""
