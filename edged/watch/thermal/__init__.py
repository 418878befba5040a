"""How warm the device may get: sensors, what of them is believed, and a governor of threads and pauses."""
