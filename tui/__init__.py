"""What people see: the commands, the app, its screens and widgets."""
