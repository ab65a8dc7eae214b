"""The experiments that the paper left open, at mini's size: grids over seeds, one table and one page each.

`grids` says what is compared, `trial` trains and measures one run, `harness` runs what is not there yet, `table` and
`page` say what came out. Needs the extra `train` and the folder of a finished training of mini.

May import: data, decoding, engines, errors, evaluation, files, hub, model, text, training, types.
"""
