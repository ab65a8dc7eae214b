"""Training: typed recipes, one trainer for one process or many, batches, and stages that are resumed one by one.

`captioning` trains the caption model for anyone who has features; `mini/` holds the stages that make the bundled model,
`teachers/` the pretrained encoders that it learns from.

May import: audio, captioner, convert, data, decoding, engines, errors, evaluation, export, extraction, files, hub,
model, text, types.
"""
