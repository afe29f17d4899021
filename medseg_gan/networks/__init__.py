"""Networks that two systems may use."""
