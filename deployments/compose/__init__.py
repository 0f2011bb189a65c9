"""What the containers of compose.yaml run beside the program."""
