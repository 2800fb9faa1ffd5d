"""`moderay tune`: the cheapest cascade that reaches a goal, and a certificate for it."""
