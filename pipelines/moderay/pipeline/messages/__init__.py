"""What travels between the stages of a run, as declared Arrow schemas.

    driver --SPAN--> read task --unit--> engine actor --ENDED--> driver

Each message is a table of one row, which Ray Data hands on as a block.
"""
