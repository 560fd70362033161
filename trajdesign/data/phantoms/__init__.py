"""Random anatomy: drawn from a random generator alone, by tissue, with soft edges."""
