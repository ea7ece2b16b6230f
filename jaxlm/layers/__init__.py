"""Arrays in, arrays out: the parts models are made of."""
