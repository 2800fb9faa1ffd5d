"""How much truly violates: strata of P, reviews dealt among them, an estimate and its interval."""
