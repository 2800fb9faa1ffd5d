"""Tables as input: the files of one snapshot of a Delta or an Iceberg table.

`location` reads their URLs, `snapshot` is what both kinds give, `delta` and `iceberg` find it,
`delta_store` hands the job's `storage:` to deltalake.
"""
