"""People judge captions: a page on which they rate them without knowing whose they are, and a report; `enclap rate`.

`study` says what is rated and by whom, `answers` keeps every answer, `page` and `server` show it, `statistics` and
`report` say what came out. Needs the extras `eval` and `serve`.

May import: audio, data, errors, evaluation, files, serving, text, types.
"""
