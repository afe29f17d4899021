"""Labels from features of the generator."""
