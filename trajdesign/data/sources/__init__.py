"""Where the images come from: one file a source."""
