"""What is shown on a device; each part is a row of the table, in the order in which they stand."""
