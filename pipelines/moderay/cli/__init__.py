"""The command line: arguments in, tables out; nothing else of moderay prints."""
