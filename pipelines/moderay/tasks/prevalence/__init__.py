"""`moderay prevalence`: rows are drawn for review, and the answers say how much truly violates."""
