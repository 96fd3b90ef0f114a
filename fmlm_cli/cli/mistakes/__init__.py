"""What goes wrong: with the words of a command, and with the program itself."""
