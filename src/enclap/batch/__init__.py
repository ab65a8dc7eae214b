"""Whole corpora, on local processes or on Ray: read, decode, run the model, write shards, and go on after any kill.

`sources` finds the recordings, `listing` keeps them on disk in shards, `decode` and `work` are the stages, `shards`
puts their parts together, `local` and `on_ray` run the same stages, and `run` is the whole job.

May import: audio, captioner, data, decoding, engines, errors, extraction, files, hub, output, prefetch, text, types.
"""
