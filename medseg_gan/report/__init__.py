"""Documents, charts and image strips of a report."""
