"""What travels between the stages of a run, as declared Arrow schemas.

    driver --SPAN--> read task --units--> engine actor --ENDED--> driver

Some units together are a table of one row, which Ray Data hands on as a block. The spans of a run
are one table, of which each task is handed the numbers of its rows.
"""
