"""Foreground and background from images alone (Yang et al., 2022)."""
