"""From token probabilities to the sentence that is shown: options, beam search, sampling, token rules, selection.

All of it is numpy, and the same for every engine.

May import: errors, files, types.
"""
