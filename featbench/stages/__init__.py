"""The stages as commands run them: each reads files, calls one room, and writes files."""
