"""How each kind of step is done; ``solve`` decides when."""
