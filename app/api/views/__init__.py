"""How resources look from outside."""
