"""Files: written whole or not at all, opened as data alone, one writer a folder."""
