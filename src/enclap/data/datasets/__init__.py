"""Data sets as (source, captions, split): the interface in `base`, and one file for each kind of data set."""
