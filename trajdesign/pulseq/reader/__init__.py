"""A reader and player of Pulseq text files that shares no code with any writer."""
