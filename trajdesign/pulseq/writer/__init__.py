"""What sequence templates are made of."""
