"""More than one broker: a cluster that loses a node, and a bridge that is cut."""
