"""From k-space to images: coil maps, networks, and how good an image is."""
