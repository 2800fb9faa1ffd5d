"""What labels add up to: audits, nights, trends."""
