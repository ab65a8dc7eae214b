"""Pretrained audio encoders that mini's audio tower learns from: networks and front ends, written here.

Their weights are others': read from a folder, never shipped. May import: audio, errors, files, types.
"""
