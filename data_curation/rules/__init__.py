"""The published heuristic rules, each family in a file with its thresholds, its measures and its judgement."""
