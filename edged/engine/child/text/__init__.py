"""From what was said to tokens, and back: templates in a sandbox, control tokens kept to whom they belong."""
