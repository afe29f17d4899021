"""Files, processes, devices and random seeds."""
