"""One process of the engine after the other: how it begins, is listened to, is judged and ends."""
