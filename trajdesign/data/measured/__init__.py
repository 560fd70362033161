"""What scanners measured, as their raw files hold it: every ADC event in the order in which it was played."""
