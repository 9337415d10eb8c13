"""One script per published figure."""
