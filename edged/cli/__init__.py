"""edgectl, the command line of edged: a module a command, imported only when it is called."""
