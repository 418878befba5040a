"""A made-up Raspberry Pi that gets warm, for trying the governor without one."""
