"""Images and raw data: who opens them, what is read of them, and the splits that they are for."""
