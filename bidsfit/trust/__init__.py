"""How far an estimate can be trusted: bounds, performance by simulation, and the companions of maps made of them."""
