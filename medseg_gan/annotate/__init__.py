"""The page on which a person paints masks, and the files it reads and writes."""
