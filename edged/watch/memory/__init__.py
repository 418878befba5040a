"""What the device's memory asks of edged: sensors, a policy, and the actions that it calls for."""
