"""What an operator can set: read, checked and explained."""

from edged.settings.describe import Change, changes, effective, is_reloadable, reloaded
from edged.settings.load import SettingsError, load
from edged.settings.mqtt import MqttTable
from edged.settings.schema import JournalTable
from edged.settings.settings import Settings

__all__ = [
    "Change",
    "JournalTable",
    "MqttTable",
    "Settings",
    "SettingsError",
    "changes",
    "effective",
    "is_reloadable",
    "load",
    "reloaded",
]
