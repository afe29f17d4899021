"""Scores, baselines, distances between image sets, and the search for copies."""
