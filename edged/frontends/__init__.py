"""The ways in: each translates its wire format to requests and frames back to it, and decides nothing."""
