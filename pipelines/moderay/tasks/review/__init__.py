"""`moderay review OUTPUT`: people answer for labels, one content at a time."""
