"""The service on a real systemd: Debian in virtual machines, without KVM (make system-test)."""
