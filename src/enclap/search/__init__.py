"""Finding sounds in a folder by words, by another sound, and by their copies; labels for recordings.

`store` keeps the windows that `indexing` heard, one row each; `query`, `likeness` and `copies` ask it. `relevance`
turns similarities into probabilities, `labels` and `tagging` name sounds. All but tagging needs the extra `search`.

May import: audio, captioner, data, decoding, engines, errors, files, hub, output, prefetch, text, types.
"""
