"""What an operator can set: read, checked and explained."""

from edged.settings.schema import Settings as Settings
