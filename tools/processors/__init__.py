"""The package on emulated processors."""
