"""The command line: one thin file for each command. What it has in common with the server lives in `output`.

Commands import what they need when they run, so that `enclap --help` loads next to nothing.

May import: audio, batch, captioner, convert, data, decoding, engines, errors, evaluation, experiments, export,
extraction, files, hub, output, rating, search, serving, text, training, types.
"""
