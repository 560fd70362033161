"""What a scanner and a patient allow: limits, projection onto them, nerves, resonances, responses."""
