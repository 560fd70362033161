"""Static fields of the objects that are imaged: one file a model."""
