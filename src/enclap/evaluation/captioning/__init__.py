"""Captions compared with references: BLEU, ROUGE-L, METEOR, CIDEr-D, SPICE and SPIDEr, their intervals and baselines.

The scores are pycocoevalcap's (extra "eval"); METEOR, SPICE and the PTB tokenizer run in Java. `evaluate` is the way
in: what cannot be computed is named with its reason, and never replaced by something similar.
"""
