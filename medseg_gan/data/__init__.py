"""Volumes and images: read, checked, preprocessed and stored; the phantoms."""
