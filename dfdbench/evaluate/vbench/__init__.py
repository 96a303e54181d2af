"""What VBench's dimensions share: where its weights lie, its preprocessing, networks, formulas."""
