"""Results to text, JSON, tables, subtitles and pictures; where they go, and what a resumed run need not do again.

Command line, server and batch jobs share it.

May import: audio, captioner, decoding, errors, files, hub, text, types, version.
"""
