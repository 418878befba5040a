"""Watches over the machine's means and sets levels; core and engine act on them."""
