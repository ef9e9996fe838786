"""What is compared: contrasts between arms, and the cells and trials that measure them. Pure."""
