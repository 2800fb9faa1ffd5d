"""Tables as output: label files in a Delta or an Iceberg table, and commits to Delta tables.

`delta_commit` opens and changes a Delta table, `delta_schema` says what a file's schema is there,
`label_files` what of an output is to be in its table; `label_table` brings a table up to that, with
`delta_labels` or `iceberg_labels`.
"""
