"""Where a run computes: devices, ranks, processes that read ahead, memory, signals."""
