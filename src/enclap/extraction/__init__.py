"""Features of a data set, computed once and kept: what training, experiments and searches start from.

Audio goes through the route that captioning uses, so that what a model learns from and what it is asked about later
cannot differ.

May import: audio, captioner, data, engines, errors, files, hub, prefetch, text, types.
"""
