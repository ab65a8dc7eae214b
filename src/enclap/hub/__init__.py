"""Where models come from: a name resolved to a folder, downloads and their locks, the authors' release, checksums.

`model_folder` is the one owner of what a model folder holds; `addresses` fetches files that are on no hub.

May import: audio, decoding, errors, files, text, types.
"""
