"""The part of SeBS that travels with every function."""
