"""Training loops and what is attached to them."""
