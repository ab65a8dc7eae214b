"""The experiments that the paper left open: grids of trainings over seeds, one table and one page each.

`grids` says what is compared. A laboratory makes the runs: `laboratory` at mini's size, on `scenes` composed of
recordings, with `encoders` of its own where a row asks for them and CLAP's `tuning`; `full_size` by a recipe of
`enclap train`. `harness` runs what is not there yet, `table` and `page` say what came out, `cost` measures without
training. Needs the extra `train`.

May import: audio, data, decoding, engines, errors, evaluation, files, hub, model, text, training, types.
"""
