"""The sections of a job file, a file each."""
