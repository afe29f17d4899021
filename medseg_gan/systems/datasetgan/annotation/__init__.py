"""Who annotates: a person, the HU rule, a segmenter, inversion."""
