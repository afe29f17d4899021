"""Weights that others published: read without executing anything, converted, fitted to grey images."""
