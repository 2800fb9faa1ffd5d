"""What travels between the stages of a run, as declared Arrow schemas.

    driver --SPAN--> read task --unit--> engine actor --ENDED--> driver

A unit is a table of one row, which Ray Data hands on as a block. The spans of a run are one table,
of which each task is handed the number of its row.
"""
