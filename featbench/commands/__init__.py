"""The commands, a file a group; `featbench.cli` puts them together."""
