"""Sounds modelled on what makes them, for the examples: each is named by taggers that never heard anything of ours.

`sounds` lists them with the words that a right caption holds, `scenes` the example files, `variations` takes of each
at other seeds, levels and codecs. They are free of anyone's rights and enter no stage of training.
"""
