"""Recipes are read and stages run."""
