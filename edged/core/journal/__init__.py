"""The journal: what was accepted is answered, also when the power goes in between."""

from edged.core.journal.journal import Journal
from edged.core.journal.records import Drop, Kind, Loss, Record, RecordKey, Recovered

__all__ = ["Drop", "Journal", "Kind", "Loss", "Record", "RecordKey", "Recovered"]
