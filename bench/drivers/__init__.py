"""How the load generator speaks to the other servers: a driver for each of their wires, each after its standard."""
