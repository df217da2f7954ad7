"""One run of an experiment: resolved once, then a file a stage."""
