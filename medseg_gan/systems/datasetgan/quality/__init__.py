"""How wrong a label may be, and whether images are copies."""
