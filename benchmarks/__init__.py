"""What the program is measured by, each with its baseline in the same run."""
