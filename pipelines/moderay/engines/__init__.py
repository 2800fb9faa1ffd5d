"""What glance and reason ask: a picklable spec on the driver, the live engine in the actor."""
