"""What inputs, targets and networks promise each other, and what passes between them."""
