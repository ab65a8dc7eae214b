"""Audio from any container to mono blocks on the recording's own time line, to windows, levels and mel spectrograms.

Training and inference both read through here, so what a model learned from and what it is given later cannot differ.

May import: errors, files, text, types.
"""
