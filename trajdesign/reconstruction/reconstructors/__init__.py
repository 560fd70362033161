"""From k-space to image: one file a reconstructor."""
