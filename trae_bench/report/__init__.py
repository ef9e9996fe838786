"""From comparisons to what people read. Makes text; whoever calls prints it."""
