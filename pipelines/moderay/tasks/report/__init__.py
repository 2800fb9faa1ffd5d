"""`moderay report`: an output on one page, from its markers and its manifest."""
